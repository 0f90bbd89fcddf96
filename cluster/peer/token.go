package peer

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
)

// Token is what a newcomer needs to join a cluster: whom to talk to, how to be
// sure that it is them, and a secret that makes sure of the newcomer.
//
// Its text is "petal-" and the base64 (RFC 4648 section 5, no padding) of
//
//	 0  1  version
//	 1 16  cluster
//	17 32  SHA-256 of the authority's certificate
//	49 16  secret
//	65  1  number of addresses; each is
//	   +1  its length, and so many bytes
//	..  4  CRC32C of all before, big-endian
type Token struct {
	Cluster     [16]byte
	Fingerprint [32]byte // pki.Fingerprint
	Secret      [16]byte
	Addrs       []string // host:port
}

const (
	tokenPrefix  = "petal-"
	tokenVersion = 1
	tokenFixed   = 1 + 16 + 32 + 16 + 1
	// addrsMax and addrMax keep a token such that it can be pasted.
	addrsMax = 8
	addrMax  = 255
	tokenMax = len(tokenPrefix) + (tokenFixed+addrsMax*(1+addrMax)+4)*4/3 + 4
)

// What may be wrong with a token's text.
var (
	ErrTokenMistyped = errors.New("peer: this is not a join token, or not all of it: copy it again")
	ErrTokenVersion  = errors.New("peer: this join token was made by a newer petal: upgrade this server first")
)

// NewSecret returns a secret that nobody guesses.
func NewSecret() (s [16]byte) {
	rand.Read(s[:]) // never fails: see package crypto/rand
	return s
}

// String is the token's text. Only the first eight addresses of at most 255 bytes
// are in it.
func (t Token) String() string {
	b := append([]byte{tokenVersion}, t.Cluster[:]...)
	b = append(b, t.Fingerprint[:]...)
	b = append(b, t.Secret[:]...)
	at := len(b)
	b = append(b, 0)
	for _, a := range t.Addrs {
		if len(a) > 0 && len(a) <= addrMax && b[at] < addrsMax {
			b = append(append(b, byte(len(a))), a...)
			b[at]++
		}
	}
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(appendSum(b))
}

func appendSum(b []byte) []byte {
	sum := crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
	return append(b, byte(sum>>24), byte(sum>>16), byte(sum>>8), byte(sum))
}

// ParseToken reads the text of a token; white space around and in it, as pasting
// brings it, does not matter. The error is ErrTokenMistyped or ErrTokenVersion.
func ParseToken(text string) (t Token, err error) {
	if len(text) > 2*tokenMax {
		return t, ErrTokenMistyped
	}
	text, ok := strings.CutPrefix(strings.Join(strings.Fields(text), ""), tokenPrefix)
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if !ok || err != nil || len(b) < 5 || string(appendSum(b[:len(b)-4:len(b)-4])) != string(b) {
		return t, ErrTokenMistyped
	}
	if b[0] > tokenVersion { // only now: a mistyped version is no newer one
		return t, ErrTokenVersion
	}
	b = b[:len(b)-4]
	if b[0] != tokenVersion || len(b) < tokenFixed || b[tokenFixed-1] > addrsMax {
		return t, ErrTokenMistyped
	}
	t.Cluster, t.Fingerprint, t.Secret = [16]byte(b[1:]), [32]byte(b[17:]), [16]byte(b[49:])
	n, b := int(b[tokenFixed-1]), b[tokenFixed:]
	for range n {
		if len(b) == 0 || b[0] == 0 || len(b) < 1+int(b[0]) {
			return Token{}, ErrTokenMistyped
		}
		end := 1 + int(b[0])
		t.Addrs = append(t.Addrs, string(b[1:end]))
		b = b[end:]
	}
	if len(b) > 0 {
		return Token{}, ErrTokenMistyped
	}
	return t, nil
}

// Redacted is the token for logs: which cluster, where, but not the secret.
func (t Token) Redacted() string { return fmt.Sprintf("token of cluster %x at %v", t.Cluster, t.Addrs) }
