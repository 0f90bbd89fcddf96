package load

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// userHz is the unit of the times in /proc/PID/stat; it is 100 on every
// architecture that Linux exports it for.
const userHz = 100

// processTime is the CPU time (utime and stime) that a process, its
// descendants and the children that it has waited for have used.
func processTime(pid int) (time.Duration, error) {
	entries, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	children := map[int][]int{}
	ticks := map[int]uint64{}
	for _, path := range entries {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended meanwhile
		}
		id, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		parent, n, err := parseStat(data)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		children[parent] = append(children[parent], id)
		ticks[id] = n
	}
	if _, ok := ticks[pid]; !ok {
		return 0, fmt.Errorf("load: there is no process %d", pid)
	}
	var sum uint64
	todo := []int{pid}
	for len(todo) > 0 {
		id := todo[len(todo)-1]
		todo = append(todo[:len(todo)-1], children[id]...)
		sum += ticks[id]
	}
	return time.Duration(sum) * time.Second / userHz, nil
}

// parseStat returns the parent and utime+stime+cutime+cstime of proc(5)'s stat
// line.
func parseStat(data []byte) (parent int, ticks uint64, err error) {
	// The command name, field 2, may hold anything, brackets and blanks too.
	end := bytes.LastIndexByte(data, ')')
	if end < 0 {
		return 0, 0, fmt.Errorf("load: %q is no stat line", data)
	}
	fields := bytes.Fields(data[end+1:])
	const first = 3 // the number of fields[0]
	if len(fields) <= 17-first {
		return 0, 0, fmt.Errorf("load: %q is no stat line", data)
	}
	parent, err = strconv.Atoi(string(fields[4-first]))
	if err != nil {
		return 0, 0, err
	}
	for n := 14; n <= 17; n++ {
		v, err := strconv.ParseUint(string(fields[n-first]), 10, 64)
		if err != nil {
			return 0, 0, err
		}
		ticks += v
	}
	return parent, ticks, nil
}
