package load

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// WriteTable writes a Result for a person: disks, jobs, errors, findings.
func (r *Result) WriteTable(w io.Writer) error {
	var b strings.Builder
	for i, d := range r.Disks {
		cache := "write-through"
		if d.WriteCache {
			cache = "write-back"
		}
		fmt.Fprintf(&b, "disk %d: %s (%s, %s)\n", i+1, d.URL, d.Product, cache)
	}
	r.writeJobs(&b)
	for i, d := range r.Disks {
		fmt.Fprintf(&b, "disk %d: longest stall %.1f ms", i+1, d.LongestStall)
		if d.Stall != nil {
			fmt.Fprintf(&b, " (%s %s lba %d)", d.Stall.Began.Format("15:04:05.000"), d.Stall.Command, d.Stall.LBA)
		}
		fmt.Fprintf(&b, ", %d reconnects, %d retries, %d errors\n", d.Reconnects, d.Retries, d.ErrorCount)
		for _, e := range d.Errors {
			fmt.Fprintf(&b, "  %s %s lba %d blocks %d: %s\n", e.Time.Format("15:04:05.000"), e.Command, e.LBA, e.Blocks, e.Error)
		}
	}
	if r.Verified != nil {
		r.Verified.write(&b)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Result) writeJobs(b *strings.Builder) {
	if len(r.Jobs) == 0 {
		return
	}
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "disk\tIOPS\tMiB/s\tread p50\tp99\twrite p50\tp99\tCPU/IO\tIOPS ratio\tCPU ratio\t  job\n")
	for _, j := range r.Jobs {
		for i, d := range j.Disks {
			fmt.Fprintf(t, "%d\t%.0f\t%.1f\t%s\t%s\t%s\t%s\t%s\t%s\t  %s\n", i+1, d.IOPS, d.MiBps,
				micros(d.Read.P50), micros(d.Read.P99), micros(d.Write.P50), micros(d.Write.P99), micros(d.CPUPerIO), j.ratios(i), j.Job.Name)
		}
	}
	t.Flush()
}

// ratios are the two columns of the ratios of the first disk to disk i.
func (j *JobResult) ratios(i int) string {
	for _, x := range j.Ratios {
		if x.Disk == i {
			return times(x.IOPS) + "\t" + times(x.CPU)
		}
	}
	return "\t"
}

func times(x float64) string {
	if x == 0 {
		return ""
	}
	return fmt.Sprintf("%.2fx", x)
}

// micros is a time in microseconds, or nothing for none.
func micros(us float64) string {
	switch {
	case us == 0:
		return ""
	case us < 100:
		return fmt.Sprintf("%.1f us", us)
	case us < 10000:
		return fmt.Sprintf("%.0f us", us)
	}
	return fmt.Sprintf("%.1f ms", us/1000)
}

func (v *Verified) write(b *strings.Builder) {
	verdict := "everything is in its place"
	switch {
	case len(v.Findings) > 0:
		verdict = "DATA IS WRONG"
	case !v.FinalRead:
		verdict = "not finished: the region was not read to its end"
	}
	fmt.Fprintf(b, "verify: %s; %s: %d sectors judged, %d writes\n", verdict, v.Region, v.SectorsJudged, v.Writes)
	for _, f := range v.Findings {
		fmt.Fprintf(b, "  %s %v\n", f.Time.Format("15:04:05.000"), f)
	}
	for _, kind := range []Kind{Stale, Torn, Lost, Misplaced, Rotten, Invented} {
		if n := v.Counts[kind]; n > 0 {
			fmt.Fprintf(b, "  %d %s\n", n, kind)
		}
	}
}
