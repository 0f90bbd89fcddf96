package peer

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"petal/cluster/peer/pki"
	"petal/placement"
)

// Joining is one exchange on a connection of its own, which TLS calls
// "petal-join/1": the newcomer, who has no certificate, makes sure of the cluster
// by the fingerprint in his token, and shows the token's secret. Each side sends
// a length (u32, big-endian) and so many bytes of JSON.

// JoinRequest is what a newcomer says about itself.
type JoinRequest struct {
	CSR     []byte   `json:"csr"` // pki.Key.Request
	Name    string   `json:"name"`
	Site    string   `json:"site,omitempty"`
	Kind    string   `json:"kind"`            // "data" or "witness"
	Addrs   []string `json:"addrs"`           // where its peers reach it
	Portals []string `json:"portals"`         // where initiators reach it
	Release string   `json:"release"`         // of its program
	Extra   []byte   `json:"extra,omitempty"` // the caller's own
}

// JoinAnswer makes the newcomer a member.
type JoinAnswer struct {
	Server    placement.Server `json:"server"`    // what it is called from now on
	Cert      []byte           `json:"cert"`      // for the key of its CSR, PEM
	Authority []byte           `json:"authority"` // PEM
	SealKey   []byte           `json:"sealKey"`   // opens the secrets in the agreed state
	Members   []Peer           `json:"members"`   // who else there is
	Extra     []byte           `json:"extra,omitempty"`
}

// Joiner lets newcomers in: the cluster's root implements it. Join is called
// once for each request, from any goroutine, and may wait for ctx, which ends
// with the newcomer's patience. The errors below reach the newcomer as they are;
// any other as its text.
type Joiner interface {
	Join(ctx context.Context, secret [16]byte, request *JoinRequest) (*JoinAnswer, error)
}

// Why a newcomer is not let in.
var (
	ErrTokenUnknown = errors.New("peer: the cluster does not know this join token")
	ErrTokenUsed    = errors.New("peer: this join token has been used: make another")
	ErrTokenExpired = errors.New("peer: this join token has expired: make another")
	// ErrOtherCluster: who answers at the token's address is not the cluster that
	// it was made for.
	ErrOtherCluster = errors.New("peer: the server at that address is not of the cluster that the join token was made for")
	// ErrNotReady: the cluster has no majority at present, or the server that was
	// asked lets nobody in.
	ErrNotReady = errors.New("peer: the cluster can't let anybody in at present: try again")
	// ErrRefused: for the reason that its text goes on with.
	ErrRefused = errors.New("peer: the cluster refused")
)

// joinErrors are the errors that have a name on the wire.
var joinErrors = map[string]error{
	"unknown": ErrTokenUnknown, "used": ErrTokenUsed, "expired": ErrTokenExpired, "not-ready": ErrNotReady, "refused": ErrRefused,
}

// joinMessage is either side's message.
type joinMessage struct {
	Secret  []byte       `json:"secret,omitempty"`
	Request *JoinRequest `json:"request,omitempty"`
	Answer  *JoinAnswer  `json:"answer,omitempty"`
	Error   string       `json:"error,omitempty"` // of joinErrors
	Text    string       `json:"text,omitempty"`
	Hint    string       `json:"hint,omitempty"`
}

// advised is an error of the other side, with its advice.
type advised struct {
	error
	hint string
}

func (a advised) Unwrap() error { return a.error }

// Hint is the advice.
func (a advised) Hint() string { return a.hint }

// Limits.
const (
	joinRequestMax = 12 << 10 // before anybody is known: see strangerBytes
	joinAnswerMax  = 1 << 20
	joinTextMax    = 1 << 10
	// joinPatience is how long the agreement on a newcomer may take.
	joinPatience = 30 * time.Second
)

// Join asks to become a member at each address of the token in turn, until one
// answers. The error is one of those above, ctx's, or why no address could be
// reached.
func Join(ctx context.Context, token Token, request *JoinRequest) (*JoinAnswer, error) {
	if len(token.Addrs) == 0 {
		return nil, fmt.Errorf("%w: it has no address", ErrTokenMistyped)
	}
	var errs []error
	for _, addr := range token.Addrs {
		answer, err := joinAt(ctx, addr, token, request)
		if err == nil {
			return answer, nil
		}
		err = fmt.Errorf("%s: %w", addr, err)
		if answered(err) {
			return nil, err
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// answered reports whether other addresses would say the same.
func answered(err error) bool {
	for _, e := range []error{ErrTokenUnknown, ErrTokenUsed, ErrTokenExpired, ErrRefused} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func joinAt(ctx context.Context, addr string, token Token, request *JoinRequest) (*JoinAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, joinPatience)
	defer cancel()
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	defer raw.Close()
	defer context.AfterFunc(ctx, func() { raw.Close() })()
	t := tls.Client(raw, pki.JoinConfig(protocolJoin, token.Cluster, token.Fingerprint))
	if err := t.HandshakeContext(ctx); err != nil {
		if errors.Is(err, pki.ErrOther) || errors.Is(err, pki.ErrName) {
			return nil, fmt.Errorf("%w (%w)", ErrOtherCluster, err)
		}
		return nil, err
	}
	if err := writeJoin(t, &joinMessage{Secret: token.Secret[:], Request: request}, joinRequestMax); err != nil {
		return nil, err
	}
	var m joinMessage
	if err := readJoin(t, &m, joinAnswerMax); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, err
	}
	if m.Error != "" {
		return nil, m.err()
	}
	if m.Answer == nil || m.Answer.Server == 0 {
		return nil, fmt.Errorf("%w without saying why", ErrRefused)
	}
	return m.Answer, nil
}

// err is the error that the other side sent.
func (m *joinMessage) err() error {
	err := joinErrors[m.Error]
	switch {
	case err == nil:
		err = fmt.Errorf("%w: %s", ErrRefused, m.Text)
	case m.Text != "":
		err = fmt.Errorf("%w: %s", err, m.Text)
	}
	if m.Hint != "" {
		return advised{err, m.Hint}
	}
	return err
}

// serveJoin answers one request. s is still a stranger: its bytes stay limited.
func (p *Peers) serveJoin(s *stranger, t *tls.Conn) error {
	defer s.Conn.Close()
	var m joinMessage
	if err := readJoin(t, &m, joinRequestMax); err != nil {
		return err
	}
	if err := s.Conn.SetDeadline(time.Now().Add(joinPatience)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(p.ctx, joinPatience)
	defer cancel()
	answer, err := p.join(ctx, &m)
	if err != nil {
		p.opt.Log.Warn("nobody joined", "from", s.RemoteAddr(), "err", err)
		return writeJoin(t, refused(err), joinAnswerMax)
	}
	p.opt.Log.Info("joined", "from", s.RemoteAddr(), "server", answer.Server)
	return writeJoin(t, &joinMessage{Answer: answer}, joinAnswerMax)
}

func (p *Peers) join(ctx context.Context, m *joinMessage) (*JoinAnswer, error) {
	if m.Request == nil || len(m.Secret) != len(Token{}.Secret) {
		return nil, fmt.Errorf("%w: no request", ErrRefused)
	}
	if p.opt.Joiner == nil {
		return nil, ErrNotReady
	}
	return p.opt.Joiner.Join(ctx, [16]byte(m.Secret), m.Request)
}

// refused is how an error travels.
func refused(err error) *joinMessage {
	for name, known := range joinErrors {
		if errors.Is(err, known) {
			text := ""
			if err != known {
				text = err.Error()
			}
			return &joinMessage{Error: name, Text: cut(text)}
		}
	}
	m := &joinMessage{Error: "refused", Text: cut(err.Error())}
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		m.Hint = cut(h.Hint())
	}
	return m
}

func cut(text string) string { return text[:min(len(text), joinTextMax)] }

func writeJoin(w io.Writer, m *joinMessage, most int) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if len(b) > most {
		return fmt.Errorf("peer: %d bytes to join with, more than %d", len(b), most)
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...))
	return err
}

func readJoin(r io.Reader, m *joinMessage, most int) error {
	var n [4]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return err
	}
	length := binary.BigEndian.Uint32(n[:])
	if length > uint32(most) {
		return fmt.Errorf("peer: %d bytes to join with, more than %d", length, most)
	}
	b := make([]byte, length)
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	return json.Unmarshal(b, m)
}
