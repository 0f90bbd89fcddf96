package pki

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// Identity is a server's certificate with its key, and the authority that it
// believes. All methods may be called from any goroutine; Renew takes effect with
// the next connection.
type Identity struct {
	authority *x509.Certificate
	name      Name
	current   atomic.Pointer[tls.Certificate]
}

// NewIdentity puts together a key, its certificate and the authority's (PEM). It
// returns an error unless they fit.
func NewIdentity(key Key, cert, authority []byte) (*Identity, error) {
	ca, err := parseCert(authority)
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	leaf, err := parseCert(cert)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	id := &Identity{authority: ca}
	if id.name, err = NameOf([]*x509.Certificate{leaf}); err != nil {
		return nil, err
	}
	// Whether it is valid at this moment is the other side's to judge, so an old
	// one can still be loaded, and renewed.
	if err := leaf.CheckSignatureFrom(ca); err != nil {
		return nil, fmt.Errorf("pki: certificate of another authority: %w", err)
	}
	if of, err := nameOf(ca); err != nil || of != (Name{Cluster: id.name.Cluster}) {
		return nil, fmt.Errorf("%w: the authority is not of cluster %x", ErrOther, id.name.Cluster)
	}
	return id, id.use(key.key, leaf)
}

// use makes leaf the certificate to show from now on.
func (id *Identity) use(key *ecdsa.PrivateKey, leaf *x509.Certificate) error {
	if !key.PublicKey.Equal(leaf.PublicKey) {
		return errors.New("pki: the key is not that of the certificate")
	}
	id.current.Store(&tls.Certificate{Certificate: [][]byte{leaf.Raw, id.authority.Raw}, PrivateKey: key, Leaf: leaf})
	return nil
}

// Issue makes the identity of a server with a new key: for the authority's own
// server, and for renewal where the authority is at hand.
func (a *Authority) Issue(name Name, now time.Time) (*Identity, error) {
	if name.Cluster != a.Cluster() || name.Server == 0 {
		return nil, fmt.Errorf("%w: %v is not of cluster %x", ErrOther, name, a.Cluster())
	}
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	leaf, err := a.certify(&key.key.PublicKey, name.Server, now)
	if err != nil {
		return nil, err
	}
	return NewIdentity(key, certPEM(leaf), a.CertPEM())
}

// Name is whose identity it is.
func (id *Identity) Name() Name { return id.name }

// AuthorityPEM is the certificate of the authority that it believes.
func (id *Identity) AuthorityPEM() []byte { return certPEM(id.authority) }

// Authority is that certificate.
func (id *Identity) Authority() *x509.Certificate { return id.authority }

// NotAfter is when the certificate ends.
func (id *Identity) NotAfter() time.Time { return id.current.Load().Leaf.NotAfter }

// Due is how long it is, at a time, until the certificate should be renewed: until
// a third of its life is left. It is 0 or less if that is now: also if the
// certificate has not begun, because the calendar was ahead when it was issued. It
// would be refused, and be due for renewal perhaps in years.
func (id *Identity) Due(now time.Time) time.Duration {
	leaf := id.current.Load().Leaf
	if now.Before(leaf.NotBefore) {
		return 0
	}
	return leaf.NotAfter.Add(-leaf.NotAfter.Sub(leaf.NotBefore.Add(clockError)) / 3).Sub(now)
}

// Renew takes over key and certificate of newer, which has to be of the same
// server and authority.
func (id *Identity) Renew(newer *Identity) error {
	if newer.name != id.name || !newer.authority.Equal(id.authority) {
		return fmt.Errorf("%w: %v renewed by %v", ErrOther, id.name, newer.name)
	}
	id.current.Store(newer.current.Load())
	return nil
}

// ServerConfig is TLS for who is connected to. protocol is the name (ALPN) of the
// protocol that takes a certificate of this cluster; open is one that asks for
// none. Others are refused.
func (id *Identity) ServerConfig(protocol, open string) *tls.Config {
	c := id.config(protocol)
	c.ClientAuth = tls.RequireAnyClientCert // VerifyConnection verifies
	c.VerifyConnection = func(s tls.ConnectionState) error { return id.verify(s, protocol, Name{}) }
	anyone := id.config(open)
	anyone.VerifyConnection = func(s tls.ConnectionState) error { return negotiated(s, open) }
	c.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		if slices.Equal(h.SupportedProtos, []string{open}) {
			return anyone, nil
		}
		return nil, nil
	}
	return c
}

// ClientConfig is TLS for who connects to the server called peer.
func (id *Identity) ClientConfig(protocol string, peer Name) *tls.Config {
	c := id.config(protocol)
	c.InsecureSkipVerify = true // of host names, which certificates have none of: VerifyConnection verifies
	c.VerifyConnection = func(s tls.ConnectionState) error { return id.verify(s, protocol, peer) }
	return c
}

func (id *Identity) config(protocol string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{protocol},
		GetCertificate:       func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return id.current.Load(), nil },
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return id.current.Load(), nil },
		// Connections live long and bring bulk data: nothing to resume, and no
		// small records to begin with.
		SessionTicketsDisabled: true, DynamicRecordSizingDisabled: true,
	}
}

func negotiated(s tls.ConnectionState, protocol string) error {
	if s.NegotiatedProtocol != protocol {
		return fmt.Errorf("pki: protocol %q, not %q", s.NegotiatedProtocol, protocol)
	}
	return nil
}

// verify accepts a certificate of our authority and cluster, and of server
// want.Server if that is not 0.
func (id *Identity) verify(s tls.ConnectionState, protocol string, want Name) error {
	if err := negotiated(s, protocol); err != nil {
		return err
	}
	n, err := NameOf(s.PeerCertificates)
	if err != nil {
		return err
	}
	if n.Cluster != id.name.Cluster || want.Server != 0 && n != want {
		return fmt.Errorf("%w: %v", ErrOther, n)
	}
	return verifyChain(s.PeerCertificates[0], id.authority)
}

// verifyChain checks that authority has signed leaf and that it is valid now.
func verifyChain(leaf, authority *x509.Certificate) error {
	roots := x509.NewCertPool()
	roots.AddCert(authority)
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	return err
}

// JoinConfig is TLS for a newcomer, who has no certificate yet: he believes the
// authority whose certificate has this fingerprint, for servers of this cluster.
func JoinConfig(protocol string, cluster [16]byte, fingerprint [32]byte) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{protocol}, SessionTicketsDisabled: true,
		InsecureSkipVerify: true, // VerifyConnection verifies
		VerifyConnection: func(s tls.ConnectionState) error {
			if err := negotiated(s, protocol); err != nil {
				return err
			}
			n, err := NameOf(s.PeerCertificates)
			if err != nil {
				return err
			}
			if len(s.PeerCertificates) != 2 || Fingerprint(s.PeerCertificates[1]) != fingerprint || n.Cluster != cluster {
				return fmt.Errorf("%w: %v", ErrOther, n)
			}
			return verifyChain(s.PeerCertificates[0], s.PeerCertificates[1])
		},
	}
}
