package initiator

import (
	"crypto/md5"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"

	"petal/target/iscsi"
)

// CHAP algorithms (IANA, PPP authentication algorithms; RFC 7143, 12.1.3).
const (
	CHAPMD5     = 5
	CHAPSHA1    = 6
	CHAPSHA256  = 7
	CHAPSHA3256 = 8
)

// chapHash makes the hash of an algorithm, nil if we have it not.
func chapHash(algorithm int) hash.Hash {
	switch algorithm {
	case CHAPMD5:
		return md5.New()
	case CHAPSHA1:
		return sha1.New()
	case CHAPSHA256:
		return sha256.New()
	case CHAPSHA3256:
		return sha3.New256()
	}
	return nil
}

// chapResponse is the response to a challenge (RFC 1994, section 4.1).
func chapResponse(algorithm int, id byte, secret string, challenge []byte) []byte {
	h := chapHash(algorithm)
	h.Write([]byte{id})
	h.Write([]byte(secret))
	h.Write(challenge)
	return h.Sum(nil)
}

// chap runs the CHAP exchange: it offers algorithms, answers the challenge
// and, if a mutual secret is set, challenges the target. On return without
// error the target has been sent all but a transit out of the stage.
func (l *loginRun) chap() error {
	o := l.options
	offer := make([]string, len(o.CHAPAlgorithms))
	for i, a := range o.CHAPAlgorithms {
		offer[i] = strconv.Itoa(a)
	}
	in, err := l.exchange(iscsi.StageSecurity, false, []string{"CHAP_A", strings.Join(offer, ",")})
	if err != nil {
		return err
	}
	algorithm, err1 := strconv.Atoi(in["CHAP_A"])
	id, err2 := strconv.ParseUint(in["CHAP_I"], 0, 8)
	challenge, err3 := parseBinary(in["CHAP_C"])
	if err := errors.Join(err1, err2, err3); err != nil || chapHash(algorithm) == nil {
		return fmt.Errorf("initiator: CHAP challenge not understood: CHAP_A=%q CHAP_I=%q: %w", in["CHAP_A"], in["CHAP_I"], err)
	}
	out := []string{"CHAP_N", o.User, "CHAP_R", "0x" + hex.EncodeToString(chapResponse(algorithm, byte(id), o.Secret, challenge))}
	if o.MutualSecret == "" {
		_, err := l.exchange(iscsi.StageSecurity, true, out)
		return err
	}
	var mine [33]byte
	rand.Read(mine[:])
	out = append(out, "CHAP_I", strconv.Itoa(int(mine[32])), "CHAP_C", "0x"+hex.EncodeToString(mine[:32]))
	if in, err = l.exchange(iscsi.StageSecurity, true, out); err != nil {
		return err
	}
	got, err := parseBinary(in["CHAP_R"])
	if err != nil {
		return err
	}
	want := chapResponse(algorithm, mine[32], o.MutualSecret, mine[:32])
	if subtle.ConstantTimeCompare(got, want) != 1 || o.MutualUser != "" && in["CHAP_N"] != o.MutualUser {
		return fmt.Errorf("%w: %q", ErrMutualCHAP, in["CHAP_N"])
	}
	return nil
}

// ErrMutualCHAP says that the target did not prove that it knows its secret.
var ErrMutualCHAP = errors.New("initiator: the target's CHAP response is wrong")

// parseBinary reads a binary-value (RFC 7143, section 6.1).
func parseBinary(s string) ([]byte, error) {
	if len(s) < 2 {
		return nil, errors.New("initiator: binary value missing")
	}
	switch s[:2] {
	case "0x", "0X":
		return hex.DecodeString(s[2:])
	case "0b", "0B":
		return base64.StdEncoding.DecodeString(s[2:])
	}
	return nil, fmt.Errorf("initiator: %.20q is no binary value", s)
}
