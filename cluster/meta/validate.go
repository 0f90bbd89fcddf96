package meta

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"petal/placement"
)

// Bounds of names and counts.
const (
	MaxDiskName       = 63
	MaxTargetName     = 223 // RFC 7143 section 4.2.7.1
	MaxLUN            = 255 // single-level peripheral addressing, SAM-5 section 4.7
	MaxACL            = 1024
	MaxUserName       = 223
	MaxReservation    = 512 << 10 // bytes of a unit's reservation value; a command must fit a log segment
	MaxDiskSize       = 1<<64 - placement.ChunkSize
	MaxServerName     = 63
	MaxSite           = 63
	maxAddresses      = 16
	maxAddress        = 272  // a host name, a colon and a port, a comma and a portal group
	maxServers        = 4095 // target port groups are numbered by them, never again by another
	maxEventText      = 500
	maxEventKind      = 32
	maxTokens         = 100
	maxTokenUses      = 1000
	maxCertificate    = 16 << 10
	defaultHintDisk   = "use 1 to 63 of a-z, 0-9, '-', '_' and '.', beginning with a letter or digit"
	defaultHintTarget = `an iSCSI name looks like "iqn.2026-11.com.example:data", "eui.02004567A425678D" or "naa.52004567BA64678D"`
)

var (
	diskName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)
	iqnName  = regexp.MustCompile(`^iqn\.[0-9]{4}-(0[1-9]|1[0-2])\.[a-z0-9][a-z0-9.-]*(:[a-z0-9.:_-]+)?$`)
	euiName  = regexp.MustCompile(`^eui\.[0-9a-f]{16}$`)
	naaName  = regexp.MustCompile(`^naa\.([0-9a-f]{16}|[0-9a-f]{32})$`)
)

// CheckDiskName says whether name can name a disk.
func CheckDiskName(name string) error {
	if !diskName.MatchString(name) {
		return refuse(ErrInvalid, diskThing(name), "not a disk name", defaultHintDisk)
	}
	return nil
}

// CheckISCSIName says whether name is an iSCSI name in its normal form (RFC
// 7143 section 4.2.7, RFC 3722: lower case).
func CheckISCSIName(name string) error {
	if len(name) > MaxTargetName || !iqnName.MatchString(name) && !euiName.MatchString(name) && !naaName.MatchString(name) {
		return refuse(ErrInvalid, fmt.Sprintf("iSCSI name %q", name), "", defaultHintTarget)
	}
	return nil
}

// CheckSize says whether a disk may have that size, in bytes.
func CheckSize(size uint64, blockSize int) error {
	thing := fmt.Sprintf("size %d", size)
	switch {
	case blockSize != 512 && blockSize != 4096:
		return refuse(ErrInvalid, fmt.Sprintf("block size %d", blockSize), "", "use 512 or 4096")
	case size == 0:
		return refuse(ErrInvalid, thing, "a disk needs at least one block", `give a size like "10GiB"`)
	case size%uint64(blockSize) != 0:
		return refuse(ErrInvalid, thing, fmt.Sprintf("not a multiple of the block size, %d bytes", blockSize),
			fmt.Sprintf("the next greater one is %d", nextMultiple(size, uint64(blockSize))))
	case size > MaxDiskSize:
		return refuse(ErrInvalid, thing, "beyond the greatest disk", fmt.Sprintf("the greatest is %d bytes (2^64 less one chunk)", uint64(MaxDiskSize)))
	}
	return nil
}

func nextMultiple(n, of uint64) uint64 {
	if n > MaxDiskSize {
		return MaxDiskSize
	}
	return (n + of - 1) / of * of
}

func checkACL(acl []string) error {
	if len(acl) > MaxACL {
		return refuse(ErrInvalid, fmt.Sprintf("access list of %d names", len(acl)), "", fmt.Sprintf("at most %d initiators", MaxACL))
	}
	for i, name := range acl {
		if err := CheckISCSIName(name); err != nil {
			return err
		}
		if slices.Contains(acl[:i], name) {
			return refuse(ErrInvalid, fmt.Sprintf("initiator %q", name), "twice in the access list", "name it once")
		}
	}
	return nil
}

func checkCHAP(c CHAP) error {
	for _, u := range []string{c.User, c.MutualUser} {
		if len(u) > MaxUserName || strings.ContainsFunc(u, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return refuse(ErrInvalid, fmt.Sprintf("CHAP user name %q", u), "", "use at most 223 printable characters")
		}
	}
	if c.User == "" && c.MutualUser != "" {
		return refuse(ErrInvalid, "CHAP account", "mutual authentication without the one-way one", "set the initiator's user and secret too")
	}
	return nil
}

func printable(s string, max int) bool {
	return len(s) <= max && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == ',' })
}

// checkServer says whether a server may be described so.
func checkServer(name, site string, addrs, portals []string) error {
	if !printable(name, MaxServerName) {
		return refuse(ErrInvalid, fmt.Sprintf("server name %q", name), "", "use at most 63 printable characters without commas")
	}
	if !printable(site, MaxSite) {
		return refuse(ErrInvalid, fmt.Sprintf("site %q", site), "", "use at most 63 printable characters without commas")
	}
	if len(addrs) > maxAddresses || len(portals) > maxAddresses {
		return refuse(ErrInvalid, fmt.Sprintf("server %q", name), fmt.Sprintf("%d addresses and %d portals", len(addrs), len(portals)), fmt.Sprintf("at most %d of each", maxAddresses))
	}
	for _, a := range slices.Concat(addrs, portals) {
		if a == "" || !printable(strings.ReplaceAll(a, ",", ""), maxAddress) {
			return refuse(ErrInvalid, fmt.Sprintf("address %q", a), "", "use host:port")
		}
	}
	return nil
}
