package api

import (
	"context"
	"errors"
	"testing"
	"time"
)

// sluggish makes a disk when it is let, and is silent to whoever asks for its status.
type sluggish struct {
	recorder
	begun, let chan struct{}
}

func (s *sluggish) Status(ctx context.Context) (Status, error) {
	<-ctx.Done()
	return Status{}, ctx.Err()
}

func (s *sluggish) CreateDisk(ctx context.Context, _ NewDisk) (Disk, error) {
	close(s.begun)
	select {
	case <-s.let:
		return aDisk, nil
	case <-ctx.Done():
		return Disk{}, ctx.Err()
	}
}

// TestChangesAreWaitedFor: a change may take longer than a question. Nobody would
// know whether one that was given up takes place.
func TestChangesAreWaitedFor(t *testing.T) {
	s := &sluggish{begun: make(chan struct{}), let: make(chan struct{})}
	c := NewClient(serve(t, s))
	c.patience = 20 * time.Millisecond // with questions
	done := make(chan error, 1)
	go func() {
		_, err := c.CreateDisk(context.Background(), NewDisk{Name: "data", Size: 1 << 20})
		done <- err
	}()
	<-s.begun
	_, err := c.Status(context.Background()) // lasts as long as patience does
	if e, ok := errors.AsType[*Error](err); !ok || e.Kind != Unreachable {
		t.Errorf("a question to who is silent: %#v", err)
	}
	close(s.let)
	if err := <-done; err != nil {
		t.Errorf("a change that took longer: %v", err)
	}
}
