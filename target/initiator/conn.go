package initiator

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"

	"petal/target/iscsi"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// PDU is one PDU as Conn sends and receives it, without padding and digests.
type PDU struct {
	iscsi.BHS
	AHS  []byte // a multiple of 4 bytes
	Data []byte
}

// Fault is a way in which Send may garble a PDU. Faults can be combined.
// Everything else that a test may want to be wrong (a DataSN, a TTT, a length
// field) it sets in the PDU itself, or sends with Write.
type Fault uint8

// The faults.
const (
	BadHeaderDigest Fault = 1 << iota // one bit of the header digest is flipped
	BadDataDigest                     // one bit of the data digest is flipped
	KeepLength                        // TotalAHSLength and DataSegmentLength go out as they stand in the BHS
	NoPadding                         // the padding is left out
	HalfSent                          // the second half is not sent and the sending side is closed
)

// Conn is an iSCSI connection PDU by PDU. It checks framing and digests and
// nothing else, with code of its own: a test that shared the target's framing
// would share its mistakes. One goroutine may send while another receives.
type Conn struct {
	nc net.Conn
	// HeaderDigest and DataDigest are in use from the next PDU on. Login sets
	// them.
	HeaderDigest, DataDigest bool
	// MaxData bounds the data segment of a PDU received, in bytes.
	MaxData int
}

// Connect opens a TCP connection to addr (host:port) and sends nothing on it.
func Connect(ctx context.Context, addr string) (*Conn, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return NewConn(nc), nil
}

// NewConn makes a Conn of an open connection.
func NewConn(nc net.Conn) *Conn { return &Conn{nc: nc, MaxData: iscsi.MaxDataSegmentField} }

// Close closes the connection, without a logout.
func (c *Conn) Close() error { return c.nc.Close() }

// NetConn is the connection below, for deadlines and half-closes.
func (c *Conn) NetConn() net.Conn { return c.nc }

// Write sends bytes as they are.
func (c *Conn) Write(p []byte) (int, error) { return c.nc.Write(p) }

// Send sends p with its lengths, padding and digests filled in, but for faults.
func (c *Conn) Send(p *PDU, faults ...Fault) error {
	var fault Fault
	for _, f := range faults {
		fault |= f
	}
	raw := c.Encode(p, fault)
	if fault&HalfSent == 0 {
		_, err := c.nc.Write(raw)
		return err
	}
	_, err := c.nc.Write(raw[:len(raw)/2])
	if half, ok := c.nc.(interface{ CloseWrite() error }); ok {
		err = errors.Join(err, half.CloseWrite())
	}
	return err
}

// Encode returns p as it would be sent.
func (c *Conn) Encode(p *PDU, fault Fault) []byte {
	if fault&KeepLength == 0 {
		p.SetAHSLength(len(p.AHS))
		p.SetDataLength(len(p.Data))
	}
	raw := append(append([]byte(nil), p.BHS[:]...), p.AHS...)
	if c.HeaderDigest {
		raw = appendDigest(raw, raw, fault&BadHeaderDigest != 0)
	}
	if len(p.Data) == 0 {
		return raw
	}
	from := len(raw)
	raw = append(raw, p.Data...)
	if fault&NoPadding == 0 {
		raw = append(raw, padding[:-len(p.Data)&3]...)
	}
	if c.DataDigest {
		raw = appendDigest(raw, raw[from:], fault&BadDataDigest != 0)
	}
	return raw
}

var padding [3]byte

// appendDigest appends the CRC32C of what, low byte first (RFC 7143, 13.1).
func appendDigest(to, what []byte, bad bool) []byte {
	sum := crc32.Checksum(what, castagnoli)
	if bad {
		sum ^= 1
	}
	return binary.LittleEndian.AppendUint32(to, sum)
}

// errDigest says that a digest that we received was wrong.
var errDigest = errors.New("initiator: digest error")

// Recv returns the next PDU. io.EOF says that the peer closed between PDUs.
func (c *Conn) Recv() (*PDU, error) {
	p := new(PDU)
	if _, err := io.ReadFull(c.nc, p.BHS[:]); err != nil {
		return nil, err
	}
	p.AHS = make([]byte, p.AHSLength())
	if err := c.readChecked(c.HeaderDigest, p.BHS[:], p.AHS); err != nil {
		return nil, err
	}
	n := p.DataLength()
	if n > c.MaxData {
		return nil, fmt.Errorf("initiator: data segment of %d bytes, at most %d are allowed", n, c.MaxData)
	}
	if n == 0 {
		return p, nil
	}
	data := make([]byte, (n+3)&^3)
	if err := c.readChecked(c.DataDigest, nil, data); err != nil {
		return nil, err
	}
	p.Data = data[:n]
	return p, nil
}

// readChecked reads into b and, if digest is set, the digest over before and b.
func (c *Conn) readChecked(digest bool, before, b []byte) error {
	if _, err := io.ReadFull(c.nc, b); err != nil {
		return unexpected(err)
	}
	if !digest {
		return nil
	}
	var sum [4]byte
	if _, err := io.ReadFull(c.nc, sum[:]); err != nil {
		return unexpected(err)
	}
	if crc32.Update(crc32.Checksum(before, castagnoli), castagnoli, b) != binary.LittleEndian.Uint32(sum[:]) {
		return errDigest
	}
	return nil
}

// unexpected makes the end of the stream within a PDU an error of its own.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
