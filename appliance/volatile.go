package appliance

import (
	"log/slog"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// warnVolatile says so if a brick's directory, which may not be there yet, is on
// a file system that does not outlive the machine's next start.
func warnVolatile(dir string, log *slog.Logger) {
	var st unix.Statfs_t
	for at := dir; unix.Statfs(at, &st) != nil; at = filepath.Dir(at) {
		if at == filepath.Dir(at) {
			return
		}
	}
	if st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC {
		log.Warn("the brick is in memory: a restart of the machine loses all its data", "brick", dir)
	}
}
