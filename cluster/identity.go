package cluster

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"petal/cluster/meta"
	"petal/journal/vfs"
	"petal/placement"
)

// Files in a node's directory. Beside them are meta (the agreed state) and tls
// (the server's certificate).
const (
	identityName = "server.json" // who this server is in its cluster; none: it is alone, number 1
	sealName     = "seal.key"    // 32 bytes that open the secrets in the agreed state
)

// identity is what a server has to know of itself before it can ask anybody.
// It is written once, when the server begins a cluster with others, or joins one.
type identity struct {
	Cluster hexID            `json:"cluster"`
	Server  placement.Server `json:"server"`
	Peers   []Peer           `json:"peers,omitempty"` // members at that time
}

// hexID is an id that people can read.
type hexID meta.ID

// MarshalText and UnmarshalText are encoding's.
func (id hexID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, id[:]), nil }

func (id *hexID) UnmarshalText(b []byte) error {
	if len(b) != 2*len(id) {
		return fmt.Errorf("an id of %d characters", len(b))
	}
	_, err := hex.Decode(id[:], b)
	return err
}

// readIdentity returns nil if there is none.
func readIdentity(fsys vfs.FS) (*identity, error) {
	b, err := readFile(fsys, identityName, 1<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	id := new(identity)
	if err := json.Unmarshal(b, id); err != nil || id.Server == 0 || id.Cluster == (hexID{}) {
		return nil, fmt.Errorf("%s: not readable (%v): restore it from a backup, or let the server join anew with an empty directory", identityName, err)
	}
	return id, nil
}

func (id *identity) write(fsys vfs.FS) error {
	b, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(fsys, identityName, append(b, '\n'))
}

// sealKey reads the key that secrets are sealed with, or makes one.
func sealKey(fsys vfs.FS, random func([]byte)) (key [32]byte, err error) {
	b, err := readFile(fsys, sealName, 1<<10)
	if err == nil {
		if len(b) != len(key) {
			return key, fmt.Errorf("%s: %d bytes where a key has %d; restore it from a backup, or remove it and set all CHAP secrets anew", sealName, len(b), len(key))
		}
		copy(key[:], b)
		return key, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	random(key[:])
	return key, writeFile(fsys, sealName, key[:])
}

// readFile returns a file's content, which is most bytes at most.
func readFile(fsys vfs.FS, name string, most int64) ([]byte, error) {
	f, err := fsys.Open(name, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	n, err := f.Size()
	if err != nil {
		return nil, err
	}
	if n > most {
		return nil, fmt.Errorf("%s: %d bytes, more than it ever has", name, n)
	}
	b := make([]byte, n)
	if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b, nil
}

// writeFile puts a file in place, as a whole or not at all; durable on return.
func writeFile(fsys vfs.FS, name string, b []byte) error {
	temp := name + ".new"
	if err := fsys.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := fsys.Create(temp, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = fsys.Rename(temp, name)
	}
	if err != nil {
		return err
	}
	return fsys.SyncDir(".")
}
