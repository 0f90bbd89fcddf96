// Package brick keeps the data of one disk: a journal for what has just been
// written, extents of 64 KiB for where it lives, and a map that says which
// extent holds which chunk and what the checksum of each 4 KiB block is.
//
//	Append ---> journal -----------------> Done: durable, still invisible
//	   |  (whole chunks: data straight
//	   |   to a fresh extent, in parallel)
//	Commit ---> pending index, cache ----> Read sees it
//	                  |
//	               destage, after 2 s or when the journal fills:
//	                  data to its extent, sync, entry to the map
//	                  |
//	               map flush ------------> journal trimmed, freed extents reused
//
// A brick is a directory:
//
//	super      identity, incarnation, links, router; four copies   super.go
//	lock       held while it is open
//	journal/   package journal; the heads of its records           head.go
//	map/       Pebble without its own log; keys and values         value.go
//	data/      files of 1 GiB, 16384 extents each                  alloc.go
//
// A brick orders nothing and agrees with nobody: its users say in which order
// records come, when they are committed, and what to do when a block is bad.
// It promises that a record, once Done, survives every crash whole; that a
// committed record is never undone; that a read gives what was written last or
// a MediumError that names the block, never anything else; and that what was
// acknowledged always finds its space.
//
// What is assumed of the disk is in package vfs; what a crash leaves behind is
// told where things are written: super.go, destage.go, recover.go, alloc.go.
package brick
