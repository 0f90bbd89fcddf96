package login

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strconv"
	"strings"

	"petal/target/iscsi"
)

// Algorithm is a CHAP algorithm (section 12.1.3; the registry of PPP
// authentication algorithms for 5 and from RFC 7143 on for the others).
type Algorithm uint8

// The algorithms.
const (
	MD5     Algorithm = 5
	SHA1    Algorithm = 6
	SHA256  Algorithm = 7
	SHA3256 Algorithm = 8
)

// hashes makes each algorithm's hash. MD5 and SHA1 are what initiators have;
// CHAP rests on the secret's entropy and not on their collisions.
var hashes = map[Algorithm]func() hash.Hash{
	MD5:     md5.New,
	SHA1:    sha1.New,
	SHA256:  sha256.New,
	SHA3256: func() hash.Hash { return sha3.New256() },
}

// Response computes a CHAP response (RFC 1994, section 4.1): the hash over
// identifier, secret and challenge. It panics on an unknown algorithm.
func (a Algorithm) Response(id byte, secret string, challenge []byte) []byte {
	h := hashes[a]()
	h.Write([]byte{id})
	io.WriteString(h, secret)
	h.Write(challenge)
	return h.Sum(nil)
}

// allows reports whether the algorithm may be used.
func (c *CHAP) allows(a Algorithm) bool {
	if hashes[a] == nil {
		return false
	}
	for _, b := range c.Algorithms {
		if a == b {
			return true
		}
	}
	return len(c.Algorithms) == 0
}

// offerChallenge answers CHAP_A, the initiator's list of algorithms with the
// preferred one first.
func (a *authenticator) offerChallenge(mine []iscsi.Pair, random io.Reader) ([]iscsi.Pair, *refusal) {
	if no := expect(mine, "CHAP_A"); no != nil {
		return nil, no
	}
	for s := range strings.SplitSeq(mine[0].Value, ",") {
		n, err := strconv.ParseUint(s, 10, 8)
		if err == nil && a.chap.allows(Algorithm(n)) {
			a.algorithm = Algorithm(n)
			break
		}
	}
	if a.algorithm == 0 {
		return nil, refuse(iscsi.LoginAuthFailure, "none of the algorithms CHAP_A=%s is allowed", mine[0].Value)
	}
	b := make([]byte, 1+iscsi.ChallengeSize)
	if _, err := io.ReadFull(random, b); err != nil {
		return nil, refuse(iscsi.LoginTargetError, "no randomness for a challenge: %v", err)
	}
	a.id, a.challenge, a.state = b[0], b[1:], authChallenged
	return []iscsi.Pair{
		{Key: "CHAP_A", Value: strconv.Itoa(int(a.algorithm))},
		{Key: "CHAP_I", Value: strconv.Itoa(int(a.id))},
		{Key: "CHAP_C", Value: encodeBinary(a.challenge)},
	}, nil
}

// verify checks the initiator's response and, if it wants to know us too,
// answers its challenge. A wrong name and a wrong response are one failure
// that takes one time: nobody learns which names exist.
func (a *authenticator) verify(mine []iscsi.Pair) ([]iscsi.Pair, *refusal) {
	keys := []string{"CHAP_N", "CHAP_R"}
	mutual := len(mine) > len(keys)
	if mutual {
		keys = append(keys, "CHAP_I", "CHAP_C")
	}
	if no := expect(mine, keys...); no != nil {
		return nil, no
	}
	got, err := decodeBinary(mine[1].Value)
	if err != nil {
		return nil, refuse(iscsi.LoginInitiatorError, "CHAP_R: %v", err)
	}
	want := a.algorithm.Response(a.id, a.chap.Secret, a.challenge)
	right := subtle.ConstantTimeCompare(got, want)
	right &= sameText(mine[0].Value, a.chap.User)
	if right != 1 {
		return nil, refuse(iscsi.LoginAuthFailure, "wrong CHAP name or secret")
	}
	a.state, a.user = authPassed, a.chap.User
	if !mutual {
		return nil, nil
	}
	return a.answer(mine[2].Value, mine[3].Value)
}

// answer proves to the initiator who we are.
func (a *authenticator) answer(identifier, challenge string) ([]iscsi.Pair, *refusal) {
	id, err := strconv.ParseUint(identifier, 10, 8)
	if err != nil {
		return nil, refuse(iscsi.LoginInitiatorError, "CHAP_I=%q", identifier)
	}
	c, err := decodeBinary(challenge)
	if err != nil || len(c) == 0 {
		return nil, refuse(iscsi.LoginInitiatorError, "CHAP_C: %v", err)
	}
	// Section 12.1.3: a challenge sent back to the one who made it would have
	// it compute the response that is wanted from the other.
	if subtle.ConstantTimeCompare(c, a.challenge) == 1 {
		return nil, refuse(iscsi.LoginAuthFailure, "initiator reflects our challenge")
	}
	if a.chap.MutualSecret == "" {
		return nil, refuse(iscsi.LoginAuthFailure, "initiator wants mutual CHAP, none is configured")
	}
	return []iscsi.Pair{
		{Key: "CHAP_N", Value: a.chap.MutualUser},
		{Key: "CHAP_R", Value: encodeBinary(a.algorithm.Response(byte(id), a.chap.MutualSecret, c))},
	}, nil
}

// sameText compares without telling by its time where the texts differ; their
// lengths do not show either.
func sameText(a, b string) int {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:])
}

// encodeBinary is a binary value in hexadecimal (section 6.1).
func encodeBinary(b []byte) string { return "0x" + hex.EncodeToString(b) }

// decodeBinary reads a binary value, 0x and hexadecimal or 0b and base64, of
// at most MaxLargeBinary bytes. An odd count of hexadecimal digits has a zero
// left out in front.
func decodeBinary(s string) ([]byte, error) {
	if len(s) < 2 || len(s) > iscsi.MaxLargeValue || s[0] != '0' {
		return nil, errors.New("no binary value: want 0x and hexadecimal, or 0b and base64")
	}
	var b []byte
	var err error
	switch digits := s[2:]; s[1] {
	case 'x', 'X':
		if len(digits)%2 == 1 {
			digits = "0" + digits
		}
		b, err = hex.DecodeString(digits)
	case 'b', 'B':
		b, err = base64.StdEncoding.Strict().DecodeString(digits)
		if strings.ContainsAny(digits, "\r\n") {
			err = errors.New("line break")
		}
	default:
		err = errors.New("want 0x or 0b")
	}
	if err != nil {
		return nil, fmt.Errorf("binary value: %w", err)
	}
	if len(b) > iscsi.MaxLargeBinary {
		return nil, fmt.Errorf("binary value of %d bytes; at most %d are allowed", len(b), iscsi.MaxLargeBinary)
	}
	return b, nil
}
