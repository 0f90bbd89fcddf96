package pki

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"time"

	"petal/placement"
)

// The authority's certificate holds at any time: a cluster that is made while the
// calendar is wrong, as on a machine that has lost its battery, must not be one
// that nobody believes when it is right. The end is what RFC 5280 section 4.1.2.5
// has for certificates without one.
var (
	authorityBegin = time.Unix(0, 0)
	authorityEnd   = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
)

// How long servers' certificates last. Clocks may be wrong by a day: certificates
// begin that much earlier.
const (
	clockError = 24 * time.Hour
	// ServerLife is how long servers' certificates last, unless Authority.Life
	// says otherwise. They are due when a third of it is left: time enough to
	// notice that renewal fails.
	ServerLife = 365 * 24 * time.Hour
)

// Authority signs the certificates of one cluster.
type Authority struct {
	Cert *x509.Certificate
	Life time.Duration // of the certificates that it signs; 0: ServerLife
	key  *ecdsa.PrivateKey
}

// NewAuthority makes the authority of a cluster, with a new key.
func NewAuthority(cluster [16]byte) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "petal cluster"}, URIs: []*url.URL{Name{Cluster: cluster}.url()},
		NotBefore: authorityBegin, NotAfter: authorityEnd,
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	cert, err := sign(template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	return &Authority{Cert: cert, key: key}, nil
}

func sign(template, parent *x509.Certificate, public *ecdsa.PublicKey, key *ecdsa.PrivateKey) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// OpenAuthority makes an authority of what CertPEM and KeyPEM returned.
func OpenAuthority(cert, key []byte) (*Authority, error) {
	c, err := parseCert(cert)
	if err != nil {
		return nil, err
	}
	k, err := parseKey(key)
	if err != nil {
		return nil, err
	}
	if n, err := nameOf(c); err != nil || n.Server != 0 || !c.IsCA {
		return nil, fmt.Errorf("%w: not an authority's", ErrName)
	}
	if !k.PublicKey.Equal(c.PublicKey) {
		return nil, errors.New("pki: the authority's key is not that of its certificate")
	}
	return &Authority{Cert: c, key: k}, nil
}

// CertPEM is the authority's certificate, which everybody may know.
func (a *Authority) CertPEM() []byte { return certPEM(a.Cert) }

// KeyPEM is the authority's key. Who has it can be any server.
func (a *Authority) KeyPEM() ([]byte, error) { return keyPEM(a.key) }

// Cluster is whose authority it is.
func (a *Authority) Cluster() [16]byte {
	n, _ := nameOf(a.Cert) // checked when it was made
	return n.Cluster
}

// Fingerprint is the SHA-256 of an authority's certificate: by it a token makes
// sure that a newcomer talks to the cluster that it was made for.
func Fingerprint(cert *x509.Certificate) [sha256.Size]byte { return sha256.Sum256(cert.Raw) }

// Sign makes a certificate for a server from its request (PEM): see NewRequest.
// Of the request nothing counts but its key and that its sender has it. The
// certificate is PEM.
func (a *Authority) Sign(request []byte, server placement.Server, now time.Time) ([]byte, error) {
	if server == 0 {
		return nil, errors.New("pki: no server has number 0")
	}
	der, err := one(request, blockRequest)
	if err != nil {
		return nil, err
	}
	req, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("pki: certificate request: %w", err)
	}
	public, ok := req.PublicKey.(*ecdsa.PublicKey)
	if !ok || public.Curve != elliptic.P256() {
		return nil, errors.New("pki: certificate request with a key that is not ECDSA P-256")
	}
	if err := req.CheckSignature(); err != nil {
		return nil, fmt.Errorf("pki: certificate request: %w", err)
	}
	cert, err := a.certify(public, server, now)
	if err != nil {
		return nil, err
	}
	return certPEM(cert), nil
}

func (a *Authority) certify(public *ecdsa.PublicKey, server placement.Server, now time.Time) (*x509.Certificate, error) {
	end := now.Add(cmp.Or(a.Life, ServerLife))
	if end.After(a.Cert.NotAfter) {
		end = a.Cert.NotAfter
	}
	return sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: fmt.Sprintf("petal server %d", server)}, URIs: []*url.URL{Name{a.Cluster(), server}.url()},
		NotBefore: now.Add(-clockError), NotAfter: end,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.Cert, public, a.key)
}
