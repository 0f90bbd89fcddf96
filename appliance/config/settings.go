package config

import (
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// group is a table of the file; an array group may come any number of times
// ([[brick]]). Its rows are all the keys that exist.
type group struct {
	name string
	add  func(*Config) error // nil unless an array: makes the element that the rows then set
	rows []row
}

// row is one key: how its value is checked and where it goes. The value is
// what TOML gave: string, int64, float64, bool, time, slice or map. get gives the
// value back in a form that set would take.
type row struct {
	name string
	set  func(c *Config, value any) error
	get  func(c *Config) any
}

// groups is the whole of petal.toml. petal.toml.example says what each key
// means; a test keeps the two together.
var groups = []group{
	{"node", nil, []row{
		text("name", func(c *Config) *string { return &c.Node.Name }, CheckNodeName),
		text("dir", func(c *Config) *string { return &c.Node.Dir }, checkPath),
		duration("drain_timeout", func(c *Config) *time.Duration { return &c.Node.Drain }, 0, longestTimeout),
	}},
	{"cluster", nil, []row{
		text("listen", func(c *Config) *string { return &c.Cluster.Listen }, checkListen),
		text("advertise", func(c *Config) *string { return &c.Cluster.Advertise }, checkPeer),
		peers,
		text("site", func(c *Config) *string { return &c.Cluster.Site }, checkSite),
		toggle("plain", func(c *Config) *bool { return &c.Cluster.Plain }),
		toggle("witness", func(c *Config) *bool { return &c.Cluster.Witness }),
		duration("certificate_life", func(c *Config) *time.Duration { return &c.Cluster.CertificateLife }, shortestCertificate, longestCertificate),
		size("resync_rate", func(c *Config) *int64 { return &c.Cluster.ResyncRate }, 1<<20, 1<<40),
	}},
	{"time", nil, append([]row{scale}, timeRows()...)},
	{"portal", addPortal, []row{
		text("listen", func(c *Config) *string { return &last(c.Portals).Listen }, checkListen),
		text("advertise", func(c *Config) *string { return &last(c.Portals).Advertise }, checkAdvertise),
		portalGroup,
	}},
	{"brick", addBrick, []row{
		text("path", func(c *Config) *string { return &last(c.Bricks).Path }, checkPath),
		size("journal", func(c *Config) *int64 { return &last(c.Bricks).Journal }, MinJournal, MaxJournal),
		size("capacity", func(c *Config) *int64 { return &last(c.Bricks).Capacity }, MinJournal, 1<<62),
	}},
	{"cache", nil, []row{
		size("size", func(c *Config) *int64 { return &c.Cache }, MinCache, 1<<44),
	}},
	{"iscsi", nil, []row{
		text("iqn_base", func(c *Config) *string { return &c.ISCSI.IQNBase }, CheckIQN),
		duration("nop_interval", func(c *Config) *time.Duration { return &c.ISCSI.NopInterval }, shortestNop, longestTimeout),
		duration("nop_timeout", func(c *Config) *time.Duration { return &c.ISCSI.NopTimeout }, shortestNop, longestTimeout),
		duration("login_timeout", func(c *Config) *time.Duration { return &c.ISCSI.LoginTimeout }, shortestNop, longestTimeout),
	}},
	{"admin", nil, []row{
		text("socket", func(c *Config) *string { return &c.Admin.Socket }, checkPath),
		text("metrics", func(c *Config) *string { return &c.Admin.Metrics }, checkListen),
	}},
	{"log", nil, []row{
		logLevel,
		text("format", func(c *Config) *string { return &c.Log.Format }, checkFormat),
	}},
}

// timeRows are the intervals that the cluster rests on. What they may be
// depends on each other; see package cluster/times, which this one must not know.
func timeRows() (rows []row) {
	for i, name := range TimeNames {
		rows = append(rows, duration(name, func(c *Config) *time.Duration { return &c.Time.Intervals[i] }, time.Millisecond, longestInterval))
	}
	return rows
}

func last[T any](s []T) *T { return &s[len(s)-1] }

func addPortal(c *Config) error {
	if len(c.Portals) == MaxPortals {
		return bad("an initiator uses at most four", "more than %d portals", MaxPortals)
	}
	c.Portals = append(c.Portals, Portal{})
	return nil
}

func addBrick(c *Config) error {
	if len(c.Bricks) == MaxBricks {
		return bad("start a second node for more disks", "more than %d bricks", MaxBricks)
	}
	c.Bricks = append(c.Bricks, Brick{})
	return nil
}

// text is a string that check likes.
func text(name string, field func(*Config) *string, check func(string) error) row {
	return row{name, func(c *Config, value any) error {
		s, ok := value.(string)
		if !ok {
			return bad(fmt.Sprintf("put it in quotes: \"%v\"", value), "a string is wanted here, this is %s", kindOf(value))
		}
		if err := check(s); err != nil {
			return err
		}
		*field(c) = s
		return nil
	}, func(c *Config) any { return *field(c) }}
}

// toggle is true or false.
func toggle(name string, field func(*Config) *bool) row {
	return row{name, func(c *Config, value any) error {
		b, ok := value.(bool)
		if !ok {
			return bad("write true or false, without quotes", "true or false is wanted here, this is %s", kindOf(value))
		}
		*field(c) = b
		return nil
	}, func(c *Config) any { return *field(c) }}
}

// size is a number of bytes between least and most.
func size(name string, field func(*Config) *int64, least, most int64) row {
	const form = "write a size such as \"10GiB\" (2^30 bytes each) or \"10GB\" (10^9 bytes each)"
	return row{name, func(c *Config, value any) error {
		var n uint64
		switch v := value.(type) {
		case int64:
			if v < 0 {
				return bad(form, "a size cannot be negative")
			}
			n = uint64(v)
		case string:
			var err error
			if n, err = ParseSize(v); err != nil {
				return bad(form, "%v", err)
			}
		default:
			return bad(form, "a size is wanted here, this is %s", kindOf(value))
		}
		if n < uint64(least) {
			return bad("leave the key out for the default", "less than the least possible, %s", FormatSize(uint64(least)))
		}
		if n > uint64(most) {
			return bad("leave the key out for the default", "more than the greatest possible, %s", FormatSize(uint64(most)))
		}
		*field(c) = int64(n)
		return nil
	}, func(c *Config) any { return *field(c) }}
}

// duration is a time between least and most.
func duration(name string, field func(*Config) *time.Duration, least, most time.Duration) row {
	const form = `write a time such as "10s" or "1m30s"`
	return row{name, func(c *Config, value any) error {
		s, ok := value.(string)
		if !ok {
			return bad(form, "a time in quotes is wanted here, this is %s", kindOf(value))
		}
		d, err := time.ParseDuration(s)
		if err != nil {
			return bad(form, "this is no time")
		}
		if d < least || d > most {
			return bad(form, "must be between %v and %v", least, most)
		}
		*field(c) = d
		return nil
	}, func(c *Config) any { return field(c).String() }}
}

var portalGroup = row{"group", func(c *Config, value any) error {
	n, ok := value.(int64)
	if !ok || n < 1 || n > MaxPortalGroup {
		return bad("all portals of one node are normally in group 1", "a portal group of a node is a number from 1 to %d", MaxPortalGroup)
	}
	last(c.Portals).Group = uint16(n)
	return nil
}, func(c *Config) any { return last(c.Portals).Group }}

var scale = row{"scale", func(c *Config, value any) error {
	f, ok := value.(float64)
	if n, isInt := value.(int64); isInt {
		f, ok = float64(n), true
	}
	if !ok || !(f >= leastScale && f <= greatestScale) {
		return bad("write 1 for the times as they are, 2 for a machine half as fast", "a scale is a number from %v to %v", leastScale, greatestScale)
	}
	c.Time.Scale = f
	return nil
}, func(c *Config) any { return c.Time.Scale }}

var logLevel = row{"level", func(c *Config, value any) error {
	const levels = "one of \"debug\", \"info\", \"warn\", \"error\""
	s, ok := value.(string)
	if !ok || c.Log.Level.UnmarshalText([]byte(s)) != nil || strings.ContainsAny(s, "+-") {
		return bad("write "+levels, "no such level")
	}
	return nil
}, func(c *Config) any { return strings.ToLower(c.Log.Level.String()) }}

// peers is a list of addresses.
var peers = row{"peers", func(c *Config, value any) error {
	const form = "write [\"ADDRESS:PORT\", \"ADDRESS:PORT\"]"
	list, ok := value.([]any)
	if !ok {
		return bad(form, "a list of addresses is wanted here, this is %s", kindOf(value))
	}
	if len(list) > MaxPeers {
		return bad("those of a majority of the voters suffice", "more than %d addresses", MaxPeers)
	}
	c.Cluster.Peers = nil
	for _, v := range list {
		s, ok := v.(string)
		if !ok {
			return bad(form, "%v is %s and no address", v, kindOf(v))
		}
		if err := checkPeer(s); err != nil {
			return bad(err.(problem).hint, "%q: %v", s, err)
		}
		c.Cluster.Peers = append(c.Cluster.Peers, s)
	}
	return nil
}, func(c *Config) any { return append([]string{}, c.Cluster.Peers...) }}

func checkFormat(s string) error {
	if s != "text" && s != "json" {
		return bad(`write "text" or "json"`, "no such format")
	}
	return nil
}

var nodeName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$`)

// CheckNodeName checks the name of a node.
func CheckNodeName(s string) error {
	if len(s) > longestNodeNameBytes || !nodeName.MatchString(s) {
		return bad("choose something like \"petal-1\"", "a node name is 1 to %d letters, digits, dots and dashes, with a letter or digit at both ends", longestNodeNameBytes)
	}
	return nil
}

func checkSite(s string) error {
	if len(s) > longestNodeNameBytes || !nodeName.MatchString(s) {
		return bad("choose something like \"rack-7\"", "a site is 1 to %d letters, digits, dots and dashes, with a letter or digit at both ends", longestNodeNameBytes)
	}
	return nil
}

func checkPath(s string) error {
	if !filepath.IsAbs(s) {
		return bad("write the whole path, from /", "a relative path would depend on where the daemon is started")
	}
	if filepath.Clean(s) == "/" {
		return bad("give it a directory of its own", "the root directory cannot be used")
	}
	return nil
}

func checkListen(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return bad("write ADDRESS:PORT, such as \"0.0.0.0:3260\" or \"[::]:3260\"", "this is no address with a port")
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return bad("iSCSI's own port is 3260", "%q is no port; ports are numbers from 1 to 65535", port)
	}
	if host != "" && net.ParseIP(host) == nil {
		return bad("write the numeric address, so that starting needs no name service", "%q is no IP address", host)
	}
	return nil
}

// checkAdvertise checks an address that initiators connect to.
func checkAdvertise(s string) error { return checkReached(s, "initiators") }

// checkPeer checks one that other nodes connect to.
func checkPeer(s string) error { return checkReached(s, "other nodes") }

func checkReached(s, who string) error {
	if err := checkListen(s); err != nil {
		return err
	}
	if host, _, _ := net.SplitHostPort(s); host == "" || net.ParseIP(host).IsUnspecified() {
		return bad("write the address that "+who+" reach", "%s cannot connect to an unspecified address", who)
	}
	return nil
}

var iqn = regexp.MustCompile(`^iqn\.[0-9]{4}-(0[1-9]|1[0-2])\.[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[a-z0-9.:-]+)?$`)

// CheckIQN checks an iSCSI qualified name (RFC 7143 section 4.2.7.4, at most
// 223 bytes) in the normalized, lower-case form that goes over the wire.
func CheckIQN(s string) error {
	if len(s) > 223 || !iqn.MatchString(s) {
		return bad("a name looks like \"iqn.2026-11.com.example:storage\": a month in which you owned the domain, the domain backwards, then what you like in lower case",
			"this is no iSCSI qualified name")
	}
	return nil
}

func kindOf(value any) string {
	switch value.(type) {
	case string:
		return "a string"
	case int64, float64:
		return "a number"
	case bool:
		return "true or false"
	case map[string]any:
		return "a table"
	case []any, []map[string]any:
		return "a list"
	}
	return "something else"
}

// CheckAddress checks an address that other nodes connect to.
func CheckAddress(s string) error { return checkPeer(s) }

// CheckPortal checks an address to listen on, "host:port" with a numeric or
// empty host.
func CheckPortal(s string) error { return checkListen(s) }
