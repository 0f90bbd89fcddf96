// Package placement holds the nouns of petal's address space and decides who
// holds which part of it. It is pure: it imports nothing of petal's, reads no
// clock and draws no unseeded randomness, so every node computes the same
// answer from the same agreed state.
//
//	virtual disk   0 ........................................ 2^64 bytes
//	chunk          |  64 KiB  |  64 KiB  |  64 KiB  | ...      unit of placement and of one journal record
//	block          16 x 4 KiB                                  unit of checksums and masks
//	bucket         (chunk + rot(family)) mod 4096              unit of sequencing, fencing and local disk placement
package placement

import "fmt"

// Sizes of the address space. They are part of the on-disk format.
const (
	BlockSize      = 4096                  // bytes in a Block
	ChunkSize      = 64 << 10              // bytes in a Chunk
	BlocksPerChunk = ChunkSize / BlockSize // 16
	Buckets        = 4096                  // buckets of a GMap
)

// Family names a virtual disk together with all its snapshots and clones.
// Zero is no family.
type Family uint32

// Node is a node of a family's epoch tree: where a version of the data was
// written. Zero is no node; the first node of a family is 1.
type Node uint32

// Chunk is the index of a 64 KiB chunk in a virtual disk's address space:
// byte offset / ChunkSize, so 0 <= Chunk < 2^48.
type Chunk uint64

// Bucket is a stride of chunks, 0 <= Bucket < Buckets.
type Bucket uint16

// Mask is a set of blocks of one chunk: bit i is block i.
type Mask uint16

// Full is the Mask of a whole chunk.
const Full Mask = 1<<BlocksPerChunk - 1

// Span returns the mask of n blocks from block first. It panics unless
// 0 <= first, 0 <= n and first+n <= BlocksPerChunk.
func Span(first, n int) Mask {
	if first < 0 || n < 0 || first+n > BlocksPerChunk {
		panic(fmt.Sprintf("placement: span of %d blocks at block %d leaves its chunk", n, first))
	}
	return Mask((1<<n - 1) << first)
}

// Key names the version of a chunk that was written at one node of its
// family's epoch tree.
type Key struct {
	Family Family
	Node   Node
	Chunk  Chunk
}

// BucketOf returns the bucket of a chunk. Small disks are spread over the
// buckets by a rotation that depends on the family.
func BucketOf(f Family, c Chunk) Bucket {
	return Bucket((uint64(c) + uint64(rot(f))) % Buckets)
}

// rot is a fixed mixing of the family id (the finalizer of MurmurHash3), part
// of the on-disk format.
func rot(f Family) uint32 {
	h := uint32(f)
	h ^= h >> 16
	h *= 0x85ebca6b
	h ^= h >> 13
	h *= 0xc2b2ae35
	h ^= h >> 16
	return h
}
