package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// A unix socket's address holds at most 107 bytes, far less than a path may
// have. Going through an open directory makes any path fit.
func shortPath(path string) (short string, release func(), err error) {
	if len(path) < 100 {
		return path, func() {}, nil
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)), func() { dir.Close() }, nil
}

// Listen opens the socket at path with mode 0600. A socket that a dead process
// left behind is replaced, one that answers is not.
func Listen(path string) (net.Listener, error) {
	short, release, err := shortPath(path)
	if err != nil {
		return nil, err
	}
	defer release()
	if conn, err := net.Dial("unix", short); err == nil {
		conn.Close()
		return nil, &Error{Kind: InUse, Message: fmt.Sprintf("admin socket %s: another process answers there", path), Advice: "stop the other node, or choose another admin.socket"}
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSocket == 0 {
		return nil, &Error{Kind: InUse, Message: fmt.Sprintf("admin socket %s: there is a file of that name which is no socket", path), Advice: "choose another admin.socket"}
	} else if err == nil {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	// The mask, not a later chmod: nobody gets in between. It is the process's,
	// but nothing else makes files while a node starts.
	mask := syscall.Umask(0o177)
	l, err := net.Listen("unix", short)
	syscall.Umask(mask)
	if err != nil {
		return nil, fmt.Errorf("admin socket %s: %w", path, err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // its name for the path may be of no use by then
	return l, nil
}

// dial connects to the socket at path.
func dial(ctx context.Context, path string) (net.Conn, error) {
	short, release, err := shortPath(path)
	if err == nil {
		defer release()
		var d net.Dialer
		var conn net.Conn
		if conn, err = d.DialContext(ctx, "unix", short); err == nil {
			return conn, nil
		}
	}
	advice := "is the node running? `petal serve` says where its socket is; name it with --admin or PETAL_ADMIN"
	if errors.Is(err, fs.ErrPermission) {
		advice = "only the user that runs the node may; try with sudo"
	}
	return nil, &Error{Kind: Unreachable, Message: fmt.Sprintf("no node answers at %s: %v", path, rootCause(err)), Advice: advice}
}

func rootCause(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}
