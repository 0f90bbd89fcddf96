package pki

import (
	"crypto/ecdsa"
	"encoding/pem"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Names of the files of a directory.
const (
	fileAuthority = "ca.pem"
	fileServer    = "node.pem"
)

// Store writes the identity into a directory, which it makes if need be. It is
// durable on return; a crash before leaves the one that was there.
func (id *Identity) Store(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	current := id.current.Load()
	key, err := keyPEM(current.PrivateKey.(*ecdsa.PrivateKey)) // as use has it
	if err != nil {
		return err
	}
	// The authority never changes once it is there, so the order matters to the
	// first time only: without a certificate there is nothing.
	if err := replace(filepath.Join(dir, fileAuthority), id.AuthorityPEM(), 0o644); err != nil {
		return err
	}
	return replace(filepath.Join(dir, fileServer), append(certPEM(current.Leaf), key...), 0o600)
}

// Load reads what Store wrote. The error is fs.ErrNotExist if there is nothing.
func Load(dir string) (*Identity, error) {
	server, err := os.ReadFile(filepath.Join(dir, fileServer))
	if err != nil {
		return nil, err
	}
	authority, err := os.ReadFile(filepath.Join(dir, fileAuthority))
	if err != nil {
		return nil, err
	}
	cert, rest := pem.Decode(server)
	if cert == nil {
		return nil, fmt.Errorf("pki: %s: no certificate", filepath.Join(dir, fileServer))
	}
	key, err := parseKey(rest)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, fileServer), err)
	}
	id, err := NewIdentity(Key{key}, pem.EncodeToMemory(cert), authority)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return id, nil
}

// replace puts a file in place, as a whole or not at all, durably.
func replace(name string, content []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(name+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Chmod(mode) // whatever the umask
	}
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(name+".new", name)
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
