package initiator

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// URL names a logical unit, a target or a portal, in libiscsi's syntax:
//
//	iscsi://[user[%secret]@]host[:port][/target[/lun]][?key=value&...]
//
// with the keys target_user and target_password (the target's own CHAP name
// and secret), header_digest and data_digest (crc32c or none).
type URL struct {
	User, Secret             string // one-way CHAP: how we show who we are
	TargetUser, TargetSecret string // mutual CHAP: what the target must show
	Host                     string // host:port; the port is 3260 if not given
	Target                   string // iqn...; empty in a discovery URL
	LUN                      uint64 // logical unit number, 0 to 16383
	HeaderDigest, DataDigest bool   // offer CRC32C
}

// maxLUN is the greatest number in flat space addressing (SAM-5, 4.7.5.5).
const maxLUN = 1<<14 - 1

// ParseURL reads a URL.
func ParseURL(s string) (URL, error) {
	u, err := parseURL(s)
	if err != nil {
		return URL{}, fmt.Errorf("%q: %w (want iscsi://[user%%secret@]host[:port]/target/lun)", s, err)
	}
	return u, nil
}

func parseURL(s string) (URL, error) {
	var u URL
	rest, ok := strings.CutPrefix(s, "iscsi://")
	if !ok {
		return u, errors.New("does not begin with iscsi://")
	}
	rest, query, _ := strings.Cut(rest, "?")
	authority, path, _ := strings.Cut(rest, "/")
	// Not url.Parse: the % between name and secret is no escape.
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		u.User, u.Secret, _ = strings.Cut(authority[:at], "%")
		authority = authority[at+1:]
	}
	host, port, err := splitHost(authority)
	if err != nil {
		return u, err
	}
	u.Host = net.JoinHostPort(host, port)
	target, lun, hasLUN := strings.Cut(path, "/")
	u.Target = target
	if hasLUN && lun != "" {
		n, err := strconv.ParseUint(lun, 10, 64)
		if err != nil || n > maxLUN {
			return u, fmt.Errorf("%q is no LUN from 0 to %d", lun, maxLUN)
		}
		u.LUN = n
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return u, err
	}
	return u, u.setQuery(values)
}

// splitHost splits host, host:port, [address] or [address]:port.
func splitHost(authority string) (host, port string, err error) {
	host, port, err = net.SplitHostPort(authority)
	if err != nil {
		host, port, err = net.SplitHostPort(authority + ":3260")
	}
	if err == nil && (host == "" || strings.ContainsAny(host, "[]") || port == "" || strings.ContainsAny(port, "[]")) {
		err = fmt.Errorf("%q is no host", authority)
	}
	if authority == "" {
		err = errors.New("has no host")
	}
	return host, port, err
}

func (u *URL) setQuery(values url.Values) error {
	for key := range values {
		value := values.Get(key)
		switch key {
		case "target_user":
			u.TargetUser = value
		case "target_password":
			u.TargetSecret = value
		case "header_digest", "data_digest":
			on := strings.EqualFold(value, "crc32c")
			if !on && !strings.EqualFold(value, "none") {
				return fmt.Errorf("%s is %q, not crc32c or none", key, value)
			}
			if key == "header_digest" {
				u.HeaderDigest = on
			} else {
				u.DataDigest = on
			}
		default:
			return fmt.Errorf("has the unknown key %q", key)
		}
	}
	return nil
}

// String is the URL without secrets.
func (u URL) String() string {
	s := "iscsi://" + u.Host
	if u.Target != "" {
		s += "/" + u.Target + "/" + strconv.FormatUint(u.LUN, 10)
	}
	return s
}

// WireLUN is the 8-byte LUN field for a logical unit number below 16384:
// peripheral device addressing up to 255, else flat space (SAM-5, 4.7.5).
func WireLUN(n uint64) uint64 {
	if n < 256 {
		return n << 48
	}
	return (1<<14 | n&maxLUN) << 48
}
