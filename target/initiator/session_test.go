package initiator_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"petal/target"
	"petal/target/initiator"
	"petal/target/iscsi"
	"petal/target/lun"
	"petal/target/scsi"
)

func random(n int) []byte {
	p := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(p)
	return p
}

// The ways of moving data: each must bring back what was written, at every
// length from one block to beyond all bursts.
func TestReadBackUnderEveryNegotiation(t *testing.T) {
	_, portal := serve(t, lun.NewMemoryDisk(64<<20, 512), nil)
	for name, o := range map[string]initiator.Options{
		"defaults":                  {},
		"digests":                   {HeaderDigest: true, DataDigest: true},
		"header digest":             {HeaderDigest: true},
		"solicited only":            {Keys: map[string]string{"InitialR2T": "Yes", "ImmediateData": "No"}},
		"immediate and solicited":   {Keys: map[string]string{"InitialR2T": "Yes"}},
		"unsolicited, no immediate": {Keys: map[string]string{"ImmediateData": "No"}},
		"small bursts":              {DataDigest: true, Keys: map[string]string{"FirstBurstLength": "1024", "MaxBurstLength": "4096", "MaxRecvDataSegmentLength": "512"}},
		"several R2Ts":              {Keys: map[string]string{"MaxOutstandingR2T": "4", "MaxBurstLength": "8192", "InitialR2T": "Yes", "ImmediateData": "No"}},
		"keys of RFC 7143":          {Keys: map[string]string{"FirstBurstLength": "", "MaxBurstLength": "", "MaxRecvDataSegmentLength": "", "InitialR2T": "", "ImmediateData": ""}},
	} {
		t.Run(name, func(t *testing.T) {
			s, d := dial(t, portal, o)
			for _, n := range []int{512, 1024, 4096, 8192 + 512, 64 << 10, 300 << 10, 1 << 20} {
				want, got := random(n), make([]byte, n)
				if err := d.Write(within(t), 7, want); err != nil {
					t.Fatalf("write of %d bytes: %v", n, err)
				}
				if err := d.Read(within(t), 7, got); err != nil {
					t.Fatalf("read of %d bytes: %v", n, err)
				}
				if !bytes.Equal(got, want) {
					t.Fatalf("%d bytes read are not those written", n)
				}
			}
			if err := s.Logout(within(t)); err != nil {
				t.Error(err)
			}
			<-s.Ended()
			if err := s.Submit(&initiator.Task{}); err == nil {
				t.Error("Submit after the session's end gave no error")
			}
		})
	}
}

func TestDigestsAreInUse(t *testing.T) {
	_, portal := serve(t, lun.NewMemoryDisk(1<<20, 512), nil)
	s, _ := dial(t, portal, initiator.Options{HeaderDigest: true, DataDigest: true})
	if p := s.Params(); !p.HeaderDigest || !p.DataDigest {
		t.Errorf("negotiated: header digest %t, data digest %t", p.HeaderDigest, p.DataDigest)
	}
}

func TestCHAP(t *testing.T) {
	_, portal := serve(t, lun.NewMemoryDisk(1<<20, 512), func(x *target.Target) {
		x.CHAP = target.CHAP{User: "anna", Secret: "a secret of anna", MutualUser: "petal", MutualSecret: "a secret of petal"}
	})
	good := initiator.Options{User: "anna", Secret: "a secret of anna", MutualUser: "petal", MutualSecret: "a secret of petal"}
	for _, algorithm := range []int{initiator.CHAPMD5, initiator.CHAPSHA1, initiator.CHAPSHA256, initiator.CHAPSHA3256} {
		t.Run(fmt.Sprintf("mutual, algorithm %d", algorithm), func(t *testing.T) {
			o := good
			o.CHAPAlgorithms = []int{algorithm}
			dial(t, portal, o)
		})
	}
	t.Run("one way", func(t *testing.T) {
		dial(t, portal, initiator.Options{User: good.User, Secret: good.Secret})
	})
	t.Run("wrong secret", func(t *testing.T) {
		o := good
		o.Secret = "not anna's secret"
		_, err := initiator.Dial(within(t), urlOf(portal), o)
		if e, ok := errors.AsType[*initiator.LoginError](err); !ok || e.Status != iscsi.LoginAuthFailure {
			t.Errorf("error is %v", err)
		}
	})
	t.Run("target with another secret", func(t *testing.T) {
		o := good
		o.MutualSecret = "some other secret"
		if _, err := initiator.Dial(within(t), urlOf(portal), o); !errors.Is(err, initiator.ErrMutualCHAP) {
			t.Errorf("error is %v", err)
		}
	})
	t.Run("none given", func(t *testing.T) {
		_, err := initiator.Dial(within(t), urlOf(portal), initiator.Options{})
		if _, ok := errors.AsType[*initiator.LoginError](err); !ok {
			t.Errorf("error is %v", err)
		}
	})
}

func TestDiscover(t *testing.T) {
	_, portal := serve(t, lun.NewMemoryDisk(1<<20, 512), nil)
	got, err := initiator.Discover(within(t), portal, initiator.Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := initiator.Portal{Target: testTarget, Address: portal, Group: "1"}
	if len(got) != 1 || got[0] != want {
		t.Errorf("Discover found %v, want %v", got, want)
	}
}

func TestRedirectIsFollowed(t *testing.T) {
	_, portal := serve(t, lun.NewMemoryDisk(1<<20, 512), nil)
	_, front := serve(t, lun.NewMemoryDisk(1<<20, 512), func(x *target.Target) { x.Redirect = portal })
	_, d := dial(t, front, initiator.Options{})
	if err := d.Write(within(t), 0, random(512)); err != nil {
		t.Error(err)
	}
}

func TestResidualAndSense(t *testing.T) {
	_, portal := serve(t, lun.NewMemoryDisk(1<<20, 512), nil)
	s, _ := dial(t, portal, initiator.Options{})
	under := &initiator.Task{LUN: s.LUN(), CDB: initiator.ReadCapacity10(), In: make([]byte, 100)}
	if err := s.Do(within(t), under); err != nil {
		t.Fatal(err)
	}
	if want := (iscsi.Residual{Underflow: true, Count: 92}); under.Residual != want || under.InLen != 8 {
		t.Errorf("READ CAPACITY (10) into 100 bytes: %d bytes, residual %+v", under.InLen, under.Residual)
	}
	over := &initiator.Task{LUN: s.LUN(), CDB: initiator.Read16(0, 2), In: make([]byte, 512)}
	if err := s.Do(within(t), over); err != nil {
		t.Fatal(err)
	}
	if want := (iscsi.Residual{Overflow: true, Count: 512}); over.Residual != want {
		t.Errorf("READ (16) of 1024 bytes into 512: residual %+v", over.Residual)
	}
	beyond := &initiator.Task{LUN: s.LUN(), CDB: initiator.Read16(1<<20, 1), In: make([]byte, 512)}
	err := s.Do(within(t), beyond)
	e, ok := errors.AsType[*initiator.StatusError](err)
	if !ok || e.Sense.Key != scsi.KeyIllegalRequest || e.Sense.Code != scsi.CodeLBAOutOfRange {
		t.Errorf("READ beyond the end: %v", err)
	}
}

func TestPingAndManage(t *testing.T) {
	_, portal := serve(t, lun.NewMemoryDisk(1<<20, 512), nil)
	s, _ := dial(t, portal, initiator.Options{})
	want := []byte("are you there?")
	if got, err := s.Ping(within(t), want); err != nil || !bytes.Equal(got, want) {
		t.Errorf("Ping returned %q, %v", got, err)
	}
	if code, err := s.Manage(within(t), iscsi.LogicalUnitReset, s.LUN()); err != nil || code != iscsi.TaskFunctionComplete {
		t.Errorf("LOGICAL UNIT RESET: %v, %v", code, err)
	}
	if code, err := s.Abort(within(t), &initiator.Task{LUN: s.LUN()}); err != nil || code != iscsi.TaskDoesNotExist {
		t.Errorf("ABORT TASK of nothing: %v, %v", code, err)
	}
}

// Depth beyond the command window and beyond what the sockets hold, mixed with
// large writes: nothing is lost, nothing hangs.
func TestDepth(t *testing.T) {
	_, portal := serve(t, lun.NewMemoryDisk(64<<20, 512), nil)
	s, _ := dial(t, portal, initiator.Options{})
	const tasks, rounds = 300, 5
	done := make(chan error, tasks)
	for i := range tasks {
		data := random(128 << 10)
		left := rounds
		task := &initiator.Task{LUN: s.LUN()}
		task.Done = func(task *initiator.Task) {
			left--
			if err := task.Failure(); err != nil || left == 0 {
				done <- err
				return
			}
			lba := uint64(i) * 64
			if left%2 == 0 {
				task.CDB, task.Out, task.In = initiator.Write16(lba, 256), data, nil
			} else {
				task.CDB, task.Out, task.In = initiator.Read16(lba, 256), nil, data
			}
			if err := s.Submit(task); err != nil {
				done <- err
			}
		}
		task.CDB = initiator.TestUnitReady()
		if err := s.Submit(task); err != nil {
			t.Fatal(err)
		}
	}
	s.Flush()
	ctx := within(t)
	for range tasks {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
		case <-ctx.Done():
			t.Fatal("hangs")
		}
	}
}

// A task that is used again allocates nothing.
func TestSubmitAllocatesNothing(t *testing.T) {
	_, portal := serve(t, lun.NewMemoryDisk(1<<20, 512), nil)
	s, _ := dial(t, portal, initiator.Options{})
	done := make(chan struct{})
	task := &initiator.Task{LUN: s.LUN(), CDB: initiator.TestUnitReady(), Done: func(*initiator.Task) { done <- struct{}{} }}
	n := testing.AllocsPerRun(500, func() {
		if err := s.Submit(task); err != nil {
			t.Fatal(err)
		}
		s.Flush()
		<-done
	})
	// The target runs in this process too.
	if n > 0 {
		t.Errorf("%v allocations a command, initiator and target together", n)
	}
}
