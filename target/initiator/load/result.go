package load

import (
	"slices"
	"time"
)

// Result is what a run found. It is the `--json` output.
type Result struct {
	Began    time.Time   `json:"began"`
	Seed     uint64      `json:"seed"`
	Disks    []Disk      `json:"disks"`
	Jobs     []JobResult `json:"jobs"`
	Verified *Verified   `json:"verified,omitempty"`
}

// Disk is a disk under load, and what it went through.
type Disk struct {
	URL        string `json:"url"`
	Product    string `json:"product"` // vendor, product and revision of INQUIRY
	Bytes      uint64 `json:"bytes"`
	BlockSize  uint32 `json:"block_size"`
	WriteCache bool   `json:"write_cache"` // WCE
	// LongestStall is the longest time that any command took, fillings and
	// reconnections included, in milliseconds.
	LongestStall float64 `json:"longest_stall_ms"`
	Stall        *Stall  `json:"longest_stall,omitempty"` // that command
	Reconnects   int     `json:"reconnects"`
	// Retries counts unit attentions, BUSY and TASK SET FULL.
	Retries    int       `json:"retries"`
	ErrorCount int       `json:"error_count"`
	Errors     []IOError `json:"errors,omitempty"` // the first maxErrors
}

// Stall is a command that took long.
type Stall struct {
	Began        time.Time `json:"began"`
	Milliseconds float64   `json:"ms"`
	Command      string    `json:"command"`
	LBA          uint64    `json:"lba"`
}

// IOError is a command that did not end with GOOD.
type IOError struct {
	Time    time.Time `json:"time"`
	Command string    `json:"command"`
	LBA     uint64    `json:"lba"`
	Blocks  uint32    `json:"blocks"`
	Error   string    `json:"error"`
}

// maxErrors bounds how many errors and findings a Result holds.
const maxErrors = 100

// JobResult is one job on all disks.
type JobResult struct {
	Job    Job           `json:"job"`
	Rounds [][]Measure   `json:"rounds"` // by round, then by disk
	Disks  []JobOnDisk   `json:"disks"`  // by disk
	Ratios []RatioToDisk `json:"ratios,omitempty"`
}

// JobOnDisk sums up one job on one disk.
type JobOnDisk struct {
	IOPS     float64 `json:"iops"`          // median of the rounds
	MiBps    float64 `json:"mib_per_s"`     // median of the rounds
	Read     Latency `json:"read_latency"`  // all rounds together
	Write    Latency `json:"write_latency"` // all rounds together
	CPUPerIO float64 `json:"cpu_us_per_io"` // median of the rounds; 0 if not measured
}

// RatioToDisk compares the first disk with another: medians of the rounds'
// ratios.
type RatioToDisk struct {
	Disk int     `json:"disk"` // index of the other
	IOPS float64 `json:"iops"`
	CPU  float64 `json:"cpu_per_io"` // 0 if not measured
}

// Measure is one job on one disk in one round.
type Measure struct {
	Seconds  float64 `json:"seconds"`
	IOs      uint64  `json:"ios"`
	IOPS     float64 `json:"iops"`
	MiBps    float64 `json:"mib_per_s"`
	Read     Latency `json:"read_latency"`
	Write    Latency `json:"write_latency"`
	CPUPerIO float64 `json:"cpu_us_per_io"`
	Errors   int     `json:"errors"`

	read, write Histogram
}

// Verified is what the verifier did and found.
type Verified struct {
	Region        string       `json:"region"`
	SectorsJudged uint64       `json:"sectors_judged"`
	Writes        uint64       `json:"writes"`
	FinalRead     bool         `json:"final_read"` // the whole region was read and judged at the end
	Uncertain     int          `json:"uncertain"`  // units that may rightly hold one of several contents
	Findings      []Finding    `json:"findings"`   // the first maxErrors
	Counts        map[Kind]int `json:"counts"`
}

// OK reports whether no I/O error and no finding was seen.
func (r *Result) OK() bool {
	for _, d := range r.Disks {
		if d.ErrorCount > 0 {
			return false
		}
	}
	return r.Verified == nil || len(r.Verified.Findings) == 0 && r.Verified.FinalRead
}

// median is that of values, 0 of none. It changes their order.
func median(values []float64) float64 {
	n := len(values)
	if n == 0 {
		return 0
	}
	slices.Sort(values)
	if n%2 == 1 {
		return values[n/2]
	}
	return (values[n/2-1] + values[n/2]) / 2
}

// sumUp fills Disks and Ratios from Rounds.
func (j *JobResult) sumUp() {
	if len(j.Rounds) == 0 {
		return
	}
	pick := func(f func(row []Measure) float64) float64 {
		var values []float64
		for _, row := range j.Rounds {
			values = append(values, f(row))
		}
		return median(values)
	}
	for d := range j.Rounds[0] {
		var read, write Histogram
		for _, row := range j.Rounds {
			read.Merge(&row[d].read)
			write.Merge(&row[d].write)
		}
		j.Disks = append(j.Disks, JobOnDisk{
			IOPS:     pick(func(row []Measure) float64 { return row[d].IOPS }),
			MiBps:    pick(func(row []Measure) float64 { return row[d].MiBps }),
			CPUPerIO: pick(func(row []Measure) float64 { return row[d].CPUPerIO }),
			Read:     read.Summary(), Write: write.Summary(),
		})
		if d > 0 {
			j.Ratios = append(j.Ratios, RatioToDisk{
				Disk: d,
				IOPS: pick(func(row []Measure) float64 { return ratio(row[0].IOPS, row[d].IOPS) }),
				CPU:  pick(func(row []Measure) float64 { return ratio(row[0].CPUPerIO, row[d].CPUPerIO) }),
			})
		}
	}
}

func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}
