// Package pki is a cluster's own certificate authority and the certificates of
// its servers: making them, keeping them in a directory, and TLS 1.3 that accepts
// no others. It knows no network and no host names: a certificate says which
// server of which cluster its holder is, wherever it may be reached.
//
//	authority   CN "petal cluster", URI petal://CLUSTER          without an end
//	     |      key: with whoever may sign, sealed in the agreed state
//	     v
//	server      URI petal://CLUSTER/server/7                      1 year,
//	            key: in its directory, never leaves it            renewed after 8 months,
//	                                                              or if it has not begun
//
// Keys are ECDSA P-256. Servers do not check revocation lists: who is no longer a
// member is refused by package peer, which knows the members.
//
// A directory holds two files, each replaced as a whole:
//
//	ca.pem    the authority's certificate, 0644
//	node.pem  the server's certificate and its key, 0600: in one file, so that
//	          no crash leaves one of them without the other
package pki

import (
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"petal/placement"
)

// Name is what a certificate certifies: a server of a cluster.
type Name struct {
	Cluster [16]byte
	Server  placement.Server // 0: the authority itself
}

const scheme = "petal"

func (n Name) String() string {
	s := scheme + "://" + hex.EncodeToString(n.Cluster[:])
	if n.Server != 0 {
		s += "/server/" + strconv.FormatUint(uint64(n.Server), 10)
	}
	return s
}

func (n Name) url() *url.URL {
	u := &url.URL{Scheme: scheme, Host: hex.EncodeToString(n.Cluster[:])}
	if n.Server != 0 {
		u.Path = "/server/" + strconv.FormatUint(uint64(n.Server), 10)
	}
	return u
}

// What a certificate may be refused for.
var (
	// ErrName: it does not say which server of which cluster its holder is.
	ErrName = errors.New("pki: certificate names no server of a petal cluster")
	// ErrOther: it is another server's, or another cluster's.
	ErrOther = errors.New("pki: certificate of another")
)

// nameOf returns what a certificate certifies.
func nameOf(c *x509.Certificate) (n Name, err error) {
	if len(c.URIs) != 1 || c.URIs[0].Scheme != scheme {
		return n, ErrName
	}
	u := c.URIs[0]
	id, err := hex.DecodeString(u.Host)
	if err != nil || len(id) != len(n.Cluster) {
		return n, ErrName
	}
	n.Cluster = [16]byte(id)
	if u.Path == "" {
		return n, nil
	}
	digits, ok := strings.CutPrefix(u.Path, "/server/")
	server, err := strconv.ParseUint(digits, 10, 32)
	if !ok || err != nil || server == 0 {
		return n, ErrName
	}
	n.Server = placement.Server(server)
	if n.String() != u.String() { // one way to write each name
		return Name{}, ErrName
	}
	return n, nil
}

// NameOf returns which server a chain of certificates, as TLS has verified it, is
// of.
func NameOf(chain []*x509.Certificate) (Name, error) {
	if len(chain) == 0 {
		return Name{}, fmt.Errorf("%w: none given", ErrName)
	}
	n, err := nameOf(chain[0])
	if err == nil && n.Server == 0 {
		return n, ErrName
	}
	return n, err
}
