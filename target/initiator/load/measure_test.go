package load

import (
	"context"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"petal/target/lun"
)

// Quantiles against sorting; 3 % is what the histogram promises.
func TestHistogramQuantiles(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, scale := range []float64{10, 1e4, 1e9} {
		var h, other Histogram
		var all []time.Duration
		for i := range 10000 {
			d := time.Duration(rng.ExpFloat64() * scale)
			all = append(all, d)
			if i%2 == 0 {
				h.Add(d)
			} else {
				other.Add(d)
			}
		}
		h.Merge(&other)
		slices.Sort(all)
		for _, q := range []float64{0.01, 0.5, 0.9, 0.99, 0.999, 1} {
			want := all[max(int(q*10000)-1, 0)]
			got := h.Quantile(q)
			if got < want || float64(got) > float64(want)*1.04+1 {
				t.Errorf("scale %g: quantile %g is %v, want %v", scale, q, got, want)
			}
		}
		if h.Count() != 10000 || h.Max() != all[len(all)-1] {
			t.Errorf("count %d, max %v", h.Count(), h.Max())
		}
	}
	var none Histogram
	if none.Quantile(0.5) != 0 || none.Mean() != 0 {
		t.Error("an empty histogram has quantiles")
	}
}

func TestHistogramBucketsMeet(t *testing.T) {
	for i := range len((&Histogram{}).counts) - 1 {
		if top := bucketTop(i); bucket(top) != i || bucket(top+1) != i+1 {
			t.Fatalf("bucket %d ends at %d, which is in bucket %d, and the next is in %d", i, top, bucket(top), bucket(top+1))
		}
	}
	if i := bucket(1<<63 - 1); i != len((&Histogram{}).counts)-1 {
		t.Errorf("the longest duration is in bucket %d", i)
	}
}

func TestParseStat(t *testing.T) {
	// A name with a bracket, as proc(5) warns.
	line := "77 (a b) c) S 5 77 77 0 -1 4194304 100 0 0 0 11 22 33 44 20 0 1 0 100 0 0"
	parent, ticks, err := parseStat([]byte(line))
	if err != nil || parent != 5 || ticks != 11+22+33+44 {
		t.Errorf("parent %d, ticks %d, %v", parent, ticks, err)
	}
	for _, bad := range []string{"", "77", "77 (x) S 1 2", strings.Replace(line, "22", "x", 1)} {
		if _, _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("77 (a) S 5 77 77 0 -1 4194304 100 0 0 0 11 22 33 44 20 0 1 0 100 0 0"))
	f.Fuzz(func(t *testing.T, line []byte) { parseStat(line) })
}

// The CPU time of a child's child counts.
func TestProcessTimeCountsDescendants(t *testing.T) {
	cmd := exec.Command("sh", "-c", "sh -c 'while :; do :; done' & echo; wait")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr = ownGroup()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer killGroup(t, cmd)
	out.Read(make([]byte, 1))
	deadline := time.Now().Add(patience)
	for {
		used, err := processTime(cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		if used >= 50*time.Millisecond {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("only %v of a busy child were counted", used)
		}
	}
}

func TestProcessTimeOfNoProcess(t *testing.T) {
	if _, err := processTime(1 << 22); err == nil {
		t.Error("no error for a process that can't be")
	}
}

// Two disks, one of which is made slow: the ratio must say so, in rounds that
// alternate.
func TestRatioOfTwoDisks(t *testing.T) {
	slow := &liar{MemoryDisk: lun.NewMemoryDisk(regionBytes, 512)}
	slow.onRead = func(int, *lie) { // under the lock: one read at a time
		for began := time.Now(); time.Since(began) < 500*time.Microsecond; {
		}
	}
	_, fastURL := serve(t, &liar{MemoryDisk: lun.NewMemoryDisk(regionBytes, 512)})
	_, slowURL := serve(t, slow)
	r, err := Run(context.Background(), Config{
		URLs: []string{fastURL, slowURL}, Rounds: 2, Time: 150 * time.Millisecond, PIDs: []int{os.Getpid(), os.Getpid()},
		Jobs: []Job{{ReadPercent: 100, Depth: 4}},
	})
	if err != nil {
		t.Fatal(err)
	}
	j := r.Jobs[0]
	if len(j.Rounds) != 2 || len(j.Rounds[1]) != 2 || len(j.Disks) != 2 || len(j.Ratios) != 1 {
		t.Fatalf("result %+v", j)
	}
	if x := j.Ratios[0]; x.Disk != 1 || x.IOPS < 1.5 {
		t.Errorf("ratio of the fast disk to the slow one: %+v", x)
	}
	// At most 2000 IOPS, and the depth at either end of a round.
	if d := j.Disks[1]; d.IOPS > 2100 || d.Read.P50 < 500 || d.CPUPerIO <= 0 || d.Write.Max != 0 {
		t.Errorf("the slow disk, at most 2000 IOPS: %+v", d)
	}
	one, two := j.Rounds[0][0], j.Rounds[1][0]
	if one.IOs+two.IOs == 0 || one.Seconds < 0.15 || two.Seconds < 0.15 || one.Errors+two.Errors != 0 {
		t.Errorf("the rounds of the fast disk: %+v, %+v", one, two)
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := median(c.values); got != c.want {
			t.Errorf("median(%v) = %v", c.values, got)
		}
	}
}
