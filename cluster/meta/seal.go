package meta

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
)

// Sealer keeps secrets at rest: AES-256-GCM under the cluster's key, a random
// nonce in front. The owner's name is authenticated with it, so that a sealed
// secret can't be moved to another account.
type Sealer struct{ aead cipher.AEAD }

// NewSealer makes a Sealer from a 32-byte key.
func NewSealer(key [32]byte) (*Sealer, error) {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	return &Sealer{aead}, nil
}

// Seal encrypts secret for owner.
func (s *Sealer) Seal(owner string, secret []byte) []byte {
	nonce := make([]byte, s.aead.NonceSize())
	rand.Read(nonce) // never fails (crypto/rand since Go 1.24)
	return s.aead.Seal(nonce, nonce, secret, []byte(owner))
}

// ErrSeal says that a sealed secret can't be opened with this key.
var ErrSeal = errors.New("meta: sealed secret does not open with this node's key")

// Open decrypts what Seal made for the same owner.
func (s *Sealer) Open(owner string, sealed []byte) ([]byte, error) {
	n := s.aead.NonceSize()
	if len(sealed) < n {
		return nil, fmt.Errorf("%w: %d bytes", ErrSeal, len(sealed))
	}
	out, err := s.aead.Open(nil, sealed[:n], sealed[n:], []byte(owner))
	if err != nil {
		return nil, ErrSeal
	}
	return out, nil
}
