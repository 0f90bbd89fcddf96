package iscsi

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// ISID is the initiator's part of a session id (section 11.12.5), bytes 8 to 13
// of a login request.
type ISID [6]byte

func (i ISID) String() string { return hex.EncodeToString(i[:]) }

// ReservedTag is the ITT or TTT that is no tag.
const ReservedTag = 0xffffffff

// NormalizeName checks an iSCSI name (section 4.2.7) and returns it in its one
// normal form, lower case. Names are the types iqn., eui. and naa.; characters
// outside ASCII are taken as they are, since initiators are to have prepared
// them (RFC 3722) and we compare bytes.
func NormalizeName(s string) (string, error) {
	if len(s) > MaxName {
		return "", fmt.Errorf("iSCSI name of %d bytes; at most %d are allowed", len(s), MaxName)
	}
	n := strings.ToLower(s)
	kind, rest, _ := strings.Cut(n, ".")
	ok := false
	switch kind {
	case "iqn":
		ok = iqnDate(rest)
	case "eui":
		ok = len(rest) == 16 && isHex(rest)
	case "naa":
		ok = (len(rest) == 16 || len(rest) == 32) && isHex(rest)
	}
	if !ok {
		return "", fmt.Errorf("%q is no iSCSI name: want iqn.YYYY-MM.reversed.domain[:anything], eui. with 16 or naa. with 16 or 32 hexadecimal digits", s)
	}
	for _, c := range n {
		// Section 4.2.7.2: dash, dot, colon and what stringprep lets through;
		// the underscore is not among them but host names bring it along.
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.' || c == ':' || c >= 0x80 && c != 0xfffd {
			continue
		}
		return "", fmt.Errorf("%q is no iSCSI name: character %q is not allowed", s, c)
	}
	return n, nil
}

// iqnDate reports whether s begins as what follows "iqn.": YYYY-MM, a dot, and
// a naming authority.
func iqnDate(s string) bool {
	if len(s) < len("2001-04.x") || s[4] != '-' || s[7] != '.' {
		return false
	}
	for _, i := range []int{0, 1, 2, 3, 5, 6} {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s[5:7] >= "01" && s[5:7] <= "12"
}

func isHex(s string) bool {
	_, err := hex.DecodeString(s)
	return err == nil
}
