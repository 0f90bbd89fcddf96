package iscsi

import (
	"encoding/binary"
	"errors"
	"io"
)

// Reader takes PDUs off a connection. Its one buffer serves headers and small
// data segments in place; large data can be read past it, straight into the
// caller's memory.
//
//	for {
//		h, err := r.Next()               // header and AHS
//		...
//		n, err := r.ReadData(vectors)    // or r.Data(), or r.Skip()
//		if !r.Buffered() {
//			w.Flush(conn)            // nothing more to do: answer now
//		}
//	}
//
// Errors are *ConnectionError, *RejectError with RejectDataDigest (the PDU has
// been consumed, the connection is in step), or what the source gave; io.EOF
// only between two PDUs.
//
// In steady state a Reader allocates nothing. It is not safe for concurrent
// use.
type Reader struct {
	// MaxData is the longest data segment that is taken: the
	// MaxRecvDataSegmentLength that we have declared.
	MaxData int
	// HeaderDigest and DataDigest say that PDUs have these digests. All three
	// may be changed between PDUs.
	HeaderDigest, DataDigest bool

	src        io.Reader
	buf        []byte
	head, tail int // buf[head:tail] has been read from src and not been consumed

	header BHS
	ahs    []byte
	data   int    // bytes of the present data segment not yet delivered
	rest   int    // padding and data digest behind them
	crc    uint32 // of the data delivered, with DataDigest

	bulk   bool     // the last data was large: read less ahead
	vector [][]byte // of ReadData
}

// VectorReader is a source that reads into several buffers with one call, as
// readv(2) does: n > 0 bytes or an error. A Reader uses it, where its source
// has it, to read large data and the header that follows with one call. See
// SocketReader. Optional.
type VectorReader interface {
	ReadVector(v [][]byte) (int, error)
}

// NewReader returns a Reader with a buffer of size bytes, at least 2 KiB, and
// the MaxData of the login phase.
func NewReader(src io.Reader, size int) *Reader {
	return &Reader{MaxData: DefaultRecvDataSegment, src: src, buf: make([]byte, max(size, afterBulk))}
}

// Grow makes the buffer at least size bytes. What is buffered stays.
func (r *Reader) Grow(size int) {
	if size <= len(r.buf) {
		return
	}
	b := make([]byte, size)
	r.tail = copy(b, r.buf[r.head:r.tail])
	r.head, r.buf = 0, b
}

// Next reads the next header, with its AHSs. Data of the PDU before that was
// not read is skipped, unchecked. The header is valid until the next call and
// may be modified.
func (r *Reader) Next() (*BHS, error) {
	if err := r.discard(); err != nil {
		return nil, err
	}
	if err := r.fill(HeaderSize); err != nil {
		return nil, err
	}
	n := HeaderSize + int(r.buf[r.head+4])*4 // with AHSs
	total := n
	if r.HeaderDigest {
		total += digestSize
	}
	if err := r.fill(total); err != nil {
		return nil, unexpected(err)
	}
	b := r.buf[r.head : r.head+total]
	// Section 7.7: "if the target detects a header digest error [...] it MUST
	// silently discard the PDU", and its length is not to be trusted: the
	// connection is lost with ErrorRecoveryLevel 0.
	if r.HeaderDigest && binary.LittleEndian.Uint32(b[n:]) != crcUpdate(0, b[:n]) {
		return nil, connectionErrorf("header digest error (section 7.7)")
	}
	copy(r.header[:], b)
	r.ahs = append(r.ahs[:0], b[HeaderSize:n]...)
	length := r.header.DataLength()
	if length > r.MaxData {
		return nil, connectionErrorf("%v with a data segment of %d bytes, but MaxRecvDataSegmentLength is %d (section 13.12)",
			r.header.Opcode(), length, r.MaxData)
	}
	r.head += total
	r.startData(length)
	return &r.header, nil
}

func (r *Reader) startData(length int) {
	r.data, r.rest, r.crc = length, pad(length), 0
	r.bulk = r.bulk && length >= directMin
	if length > 0 && r.DataDigest {
		r.rest += digestSize
	}
}

// AHS is the Additional Header Segments of the present PDU, all together. It is
// valid until Next.
func (r *Reader) AHS() []byte { return r.ahs }

// DataLength is how many bytes of the present data segment have not been read.
func (r *Reader) DataLength() int { return r.data }

// DataBuffered reports whether the present data segment, with its padding and
// digest, is in memory as a whole: then reading it does not wait.
func (r *Reader) DataBuffered() bool {
	return r.data == 0 || r.tail-r.head >= r.data+r.rest
}

// Data reads all that is left of the present data segment and returns it in
// place, valid until the next call of any method. The buffer grows to hold it:
// at most MaxData.
func (r *Reader) Data() ([]byte, error) {
	n := r.data
	if n == 0 {
		return nil, nil
	}
	r.Grow(n + r.rest)
	if err := r.fill(n + r.rest); err != nil {
		return nil, unexpected(err)
	}
	b := r.buf[r.head : r.head+n : r.head+n]
	r.take(n)
	return b, r.finishData()
}

// ReadData reads the next bytes of the present data segment into dst, one part
// after the other, until dst is full or the segment is at its end, and returns
// how many there were. The data digest is checked at the segment's end, so on
// error dst holds rubbish.
func (r *Reader) ReadData(dst [][]byte) (int, error) {
	if r.data == 0 {
		return 0, nil // also keeps an already reported end from being checked twice
	}
	v, total := r.aim(dst)
	defer clear(v)
	r.bulk = r.bulk && total >= directMin
	for want := total; want > 0; {
		n, err := r.readSome(v, want)
		if err != nil {
			return total - want, unexpected(err)
		}
		want -= n
		v = r.delivered(v, n)
	}
	if r.data > 0 {
		return total, nil
	}
	return total, r.finishData()
}

// directMin is from how many bytes on data is read past the buffer.
const directMin = 16 << 10

// afterBulk is how much is read behind large data: the next header, and as
// little as can be of the large data that is likely to follow it.
const afterBulk = 2 << 10

// aim returns dst without what the data segment does not reach, and its length.
func (r *Reader) aim(dst [][]byte) ([][]byte, int) {
	r.vector = r.vector[:0]
	total := 0
	for _, p := range dst {
		if p = p[:min(len(p), r.data-total)]; len(p) > 0 {
			r.vector = append(r.vector, p)
			total += len(p)
		}
	}
	r.vector = append(r.vector, nil) // room for the buffer: see readPast
	return r.vector[:len(r.vector)-1], total
}

// readSome reads some of the next want bytes into v: from the buffer while it
// has any, large data past it, and small data by way of it.
func (r *Reader) readSome(v [][]byte, want int) (int, error) {
	if r.head == r.tail && want >= directMin {
		return r.readPast(v, want)
	}
	if err := r.fill(1); err != nil {
		return 0, err
	}
	n := copy(v[0], r.buf[r.head:r.tail])
	r.head += n
	return n, nil
}

// readPast reads into v, want bytes long, while the buffer is empty; with a
// VectorReader into the buffer too, behind v.
func (r *Reader) readPast(v [][]byte, want int) (int, error) {
	r.bulk = true
	src, ok := r.src.(VectorReader)
	if !ok {
		n, err := r.src.Read(v[0])
		if n > 0 {
			err = nil // it will come again
		}
		return n, err
	}
	if len(v) >= iovMax {
		return src.ReadVector(v[:iovMax])
	}
	n, err := src.ReadVector(append(v, r.buf[:afterBulk]))
	r.head, r.tail = 0, max(0, n-want)
	return min(n, want), err
}

// delivered notes that the first n bytes of v have been read, and returns the
// rest of it.
func (r *Reader) delivered(v [][]byte, n int) [][]byte {
	r.data -= n
	for n > 0 {
		k := min(n, len(v[0]))
		r.sum(v[0][:k])
		n -= k
		if v[0] = v[0][k:]; len(v[0]) == 0 {
			v = v[1:]
		}
	}
	return v
}

// take consumes n buffered bytes of the data segment.
func (r *Reader) take(n int) {
	r.sum(r.buf[r.head : r.head+n])
	r.head += n
	r.data -= n
}

func (r *Reader) sum(b []byte) {
	if r.DataDigest {
		r.crc = crcUpdate(r.crc, b)
	}
}

// finishData consumes the padding and checks the digest.
func (r *Reader) finishData() error {
	if r.rest == 0 {
		return nil
	}
	if err := r.fill(r.rest); err != nil {
		return unexpected(err)
	}
	b := r.buf[r.head : r.head+r.rest]
	r.head += r.rest
	digest := r.rest >= digestSize
	r.rest = 0
	if !digest {
		return nil
	}
	n := len(b) - digestSize
	if crcUpdate(r.crc, b[:n]) != binary.LittleEndian.Uint32(b[n:]) {
		return &RejectError{Reason: RejectDataDigest, Why: r.header.Opcode().String() + " (section 7.7)"}
	}
	return nil
}

// Skip reads what is left of the data segment and throws it away, but checks
// its digest.
func (r *Reader) Skip() error {
	if r.data == 0 {
		return nil
	}
	for r.data > 0 {
		if r.head == r.tail {
			if err := r.fill(1); err != nil {
				return unexpected(err)
			}
		}
		r.take(min(r.data, r.tail-r.head))
	}
	return r.finishData()
}

// discard leaves the present PDU behind.
func (r *Reader) discard() error {
	err := r.Skip()
	if _, ok := errors.AsType[*RejectError](err); ok {
		return nil
	}
	return err
}

// Buffered reports whether the next PDU is in memory as a whole, or is so wrong
// that Next will say so without waiting.
func (r *Reader) Buffered() bool {
	if r.data != 0 {
		return false
	}
	b := r.buf[r.head:r.tail]
	if len(b) < HeaderSize {
		return false
	}
	n := HeaderSize + int(b[4])*4
	length := int(b[5])<<16 | int(b[6])<<8 | int(b[7])
	if length > r.MaxData {
		return true
	}
	n += length + pad(length)
	if r.HeaderDigest {
		n += digestSize
	}
	if r.DataDigest && length > 0 {
		n += digestSize
	}
	return len(b) >= n
}

// fill has at least n bytes in the buffer; n is not greater than the buffer,
// which is grown for headers if need be.
func (r *Reader) fill(n int) error {
	if r.tail-r.head >= n {
		return nil
	}
	if len(r.buf) < n {
		r.Grow(n)
	}
	if r.head == r.tail {
		r.head, r.tail = 0, 0
	} else if r.head+n > len(r.buf) {
		r.tail = copy(r.buf, r.buf[r.head:r.tail])
		r.head = 0
	}
	end := len(r.buf)
	if r.bulk {
		end = min(end, max(r.head+n, r.tail+afterBulk))
	}
	got, err := io.ReadAtLeast(r.src, r.buf[r.tail:end], n-(r.tail-r.head))
	r.tail += got
	if err != nil && r.tail > r.head {
		return unexpected(err)
	}
	return err
}

// unexpected is err, but io.EOF inside a PDU is no clean end.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
