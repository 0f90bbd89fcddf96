package cluster

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// A logical block is a register that can be written, read, and compared and
// written. Every command on several blocks is one operation on each.

type registerInput struct {
	kind        byte // 'r', 'w', 'c'
	block       int
	value, want uint64 // want: of 'c'
}

// registerOutput is the value read, or whether the comparison held.
type registerOutput struct {
	value uint64
	equal bool
}

var registerModel = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		by := map[int][]porcupine.Operation{}
		for _, op := range history {
			b := op.Input.(registerInput).block
			by[b] = append(by[b], op)
		}
		var parts [][]porcupine.Operation
		for _, p := range by {
			parts = append(parts, p)
		}
		return parts
	},
	Init: func() any { return uint64(0) },
	Step: func(state, input, output any) (bool, any) {
		s, in, out := state.(uint64), input.(registerInput), output.(registerOutput)
		switch in.kind {
		case 'r':
			return out.value == s, s
		case 'w':
			return true, in.value
		}
		if out.equal != (s == in.want) {
			return false, s
		}
		if out.equal {
			return true, in.value
		}
		return true, s
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) },
}

// sector is a logical block with a value all over it.
func sector(value uint64, n int) []byte {
	b := make([]byte, n)
	for i := 0; i < n; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], value)
	}
	return b
}

// sectorValue is the value of a logical block; ok is false if it is torn.
func sectorValue(b []byte) (value uint64, ok bool) {
	value = binary.LittleEndian.Uint64(b)
	for i := 8; i < len(b); i += 8 {
		if binary.LittleEndian.Uint64(b[i:]) != value {
			return 0, false
		}
	}
	return value, true
}

// linearize runs clients on few blocks at both sides of a chunk's edge and has
// the history checked.
func linearize(t *testing.T, v *Volume, seed uint64, clients, steps int) {
	const blocks = 12
	base := uint64(65536) - 512*4 // 4 blocks in one chunk, 8 in the next
	var clock atomic.Int64
	var tag atomic.Uint64
	var mu sync.Mutex
	var history []porcupine.Operation
	add := func(client int, call int64, in registerInput, out registerOutput) {
		end := clock.Add(1)
		mu.Lock()
		history = append(history, porcupine.Operation{ClientId: client, Input: in, Call: call, Output: out, Return: end})
		mu.Unlock()
	}
	var wg sync.WaitGroup
	for client := range clients {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(client)))
			last := [blocks]uint64{} // what this client saw last: good guesses for compare
			for range steps {
				b := r.IntN(blocks)
				off := base + uint64(b)*512
				n := min(1+r.IntN(4), blocks-b)
				call := clock.Add(1)
				switch r.IntN(7) {
				case 0, 1:
					value := tag.Add(1)
					if err := <-write(v, off, sector(value, 512*n), r.IntN(2) == 0); err != nil {
						t.Error(err)
						return
					}
					for i := range n {
						add(client, call, registerInput{kind: 'w', block: b + i, value: value}, registerOutput{})
					}
				case 2, 3:
					value := tag.Add(1)
					got := <-caw(v, off, sector(last[b], 512), sector(value, 512))
					if got.err != nil {
						t.Error(got.err)
						return
					}
					add(client, call, registerInput{kind: 'c', block: b, value: value, want: last[b]}, registerOutput{equal: got.miscompare < 0})
				case 4:
					if err := <-zero(v, off, uint64(512*n)); err != nil {
						t.Error(err)
						return
					}
					for i := range n {
						add(client, call, registerInput{kind: 'w', block: b + i}, registerOutput{})
					}
				default:
					got := <-read(v, off, 512*n)
					if got.err != nil {
						t.Error(got.err)
						return
					}
					for i := range n {
						value, ok := sectorValue(got.data[512*i : 512*i+512])
						if !ok {
							t.Errorf("block %d is torn", b+i)
							return
						}
						last[b+i] = value
						add(client, call, registerInput{kind: 'r', block: b + i}, registerOutput{value: value})
					}
				}
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	if res := porcupine.CheckOperationsTimeout(registerModel, history, 5*time.Minute); res != porcupine.Ok {
		t.Fatalf("seed %d: history of %d operations: %s", seed, len(history), res)
	}
}

func TestLinearizable(t *testing.T) {
	for _, writeBack := range []bool{false, true} {
		t.Run(fmt.Sprintf("writeback=%t", writeBack), func(t *testing.T) {
			for seed := range uint64(10) {
				f := newFake(t)
				f.concurrent()
				v := testVolume(f, 1<<20, 512, writeBack)
				linearize(t, v, seed, 6, 60)
				if err := <-flush(v); err != nil {
					t.Fatal(err)
				}
				if err := v.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
