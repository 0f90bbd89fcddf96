package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

const (
	blockCert    = "CERTIFICATE"
	blockKey     = "PRIVATE KEY"
	blockRequest = "CERTIFICATE REQUEST"
)

func certPEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: blockCert, Bytes: c.Raw})
}

func keyPEM(k *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: blockKey, Bytes: der}), nil
}

// one returns the content of the only block of b, which is of type typ.
func one(b []byte, typ string) ([]byte, error) {
	block, rest := pem.Decode(b)
	if block == nil || block.Type != typ || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("pki: not one PEM block %q", typ)
	}
	return block.Bytes, nil
}

func parseCert(b []byte) (*x509.Certificate, error) {
	der, err := one(b, blockCert)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func parseKey(b []byte) (*ecdsa.PrivateKey, error) {
	der, err := one(b, blockKey)
	if err != nil {
		return nil, err
	}
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	key, ok := k.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("pki: key is not ECDSA P-256")
	}
	return key, nil
}

// Key is a server's key before it has a certificate.
type Key struct{ key *ecdsa.PrivateKey }

// NewKey makes a key.
func NewKey() (Key, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return Key{k}, err
}

// Request is what to have signed: PEM, nothing secret.
func (k Key) Request() ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, k.key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: blockRequest, Bytes: der}), nil
}
