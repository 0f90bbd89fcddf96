package lun

import "context"

// Disk is what a logical unit stands on: a sparse virtual disk. It is declared
// here, by its consumer, with types of the standard library only, so that the
// target side and the cluster side never import each other; they meet in
// appliance.
//
// Offsets and lengths are bytes and multiples of BlockSize. All methods may be
// called from any goroutine. The asynchronous ones (those with a done
// argument) never block on a disk or a peer in the caller's goroutine; done is
// called exactly once, from any goroutine, possibly before the method returns,
// and must not block. Callers on a hot path keep one func value per command,
// so that passing it allocates nothing.
//
// Overlapping commands are ordered by admission, that is by the order of the
// calls. A read served after a write's done(nil) sees that write. A write is
// atomic within each 64 KiB chunk that it touches, not across chunks: after a
// crash, after an error, and for readers it is there as a whole or not at all.
//
// Errors. Every error that a Disk gives is one of these, told by errors.Is and
// errors.As:
//
//	syscall.ENOSPC       an allocating write found no space; nothing was written
//	syscall.EROFS        the disk is read-only
//	syscall.EINVAL       the range is not aligned or leaves the disk
//	context.Canceled     the command was cancelled and never takes effect
//	MediumError          stored data failed its checksum and cannot be repaired
//	Busy                 what was not done never will be, but soon may again; of a
//	                     command that a Disk carries out in parts some may be done
//	anything else        the data cannot be reached; never reported to the
//	                     initiator as a final error (the session is dropped)
//
// A Disk tries by itself for as long as a command may: what has failed is not
// handed to it again.
type Disk interface {
	// Size is the disk's present size in bytes.
	Size() uint64

	// BlockSize is the logical block length in bytes, 512 or 4096. It never
	// changes.
	BlockSize() int

	// WriteCache reports whether writes may be acknowledged before they are
	// durable (WCE). It may change while the disk is in use.
	WriteCache() bool

	// ReadOnly reports whether writes are refused with syscall.EROFS.
	ReadOnly() bool

	// Read reads n > 0 bytes at off. On success the data is lent: vec is the
	// data in order, valid until Release(loan). On error vec and loan are nil.
	Read(off uint64, n int, done func(vec [][]byte, loan any, err error))

	// Reserve lends memory for a write of n > 0 bytes at off: the lengths of
	// vec add up to n. The borrower fills it and gives it back with exactly
	// one of Write or Release. ErrNoMemory-like shortage is not an error: a
	// Disk bounds what is lent by the sum of its users' command windows.
	// n is at most MaxTransfer.
	Reserve(off uint64, n int) (vec [][]byte, loan any, err error)

	// Write writes the data in loan (from Reserve) and takes the loan over.
	// On done(nil) the data is readable and, if fua is set or WriteCache is
	// false, durable.
	Write(loan any, fua bool, done func(error))

	// Release gives back memory lent by Read or Reserve.
	Release(loan any)

	// CompareAndWrite compares len(compare) bytes at off with compare and, if
	// they are equal, writes data (of the same length, inside one 4 KiB block), in
	// one atomic step. miscompare is the offset of the first byte that differs,
	// or -1 when all were equal and data is durable as for Write with fua.
	// Disk keeps neither slice after done.
	CompareAndWrite(off uint64, compare, data []byte, done func(miscompare int, err error))

	// Zero makes n bytes at off read as zeros. With unmap set, it gives back
	// the space where it can (whole 4 KiB blocks) and done means so; without,
	// it may still do so, since it must allocate nothing. Durable like Write.
	Zero(off uint64, n uint64, unmap bool, done func(error))

	// Flush makes everything durable that was acknowledged before the call.
	Flush(done func(error))

	// Provisioned reports whether the block at off is mapped to space, and for
	// how many bytes from off, at least one block and at most limit, that holds.
	Provisioned(off, limit uint64) (mapped bool, run uint64, err error)

	// Usage is the space of the pool that the disk allocates from, and what the
	// disk itself occupies, all in bytes. Soft reports that the pool is beyond
	// its soft threshold.
	Usage() (used, poolAvailable, poolTotal uint64, soft bool)
}

// MaxTransfer is the greatest length of one Read or Reserve, in bytes.
// Longer commands are refused by the device server (VPD B0 names it).
const MaxTransfer = 16 << 20

// MediumError is an error that names the bytes that could not be read.
type MediumError interface {
	error
	// BadRange is the first unreadable range of the request, in bytes of the disk.
	BadRange() (off, n uint64)
}

// Reservations is where a logical unit keeps its persistent reservations: a
// versioned value that is agreed upon by the whole cluster and survives every
// restart. What is inside is the device server's business (package lun encodes
// and decodes it); the store compares and swaps.
type Reservations interface {
	// Load returns the present value and its version. The value is not to be
	// modified. A unit that never had reservations has version 0 and no value.
	// It does not block.
	Load() (value []byte, version uint64)

	// Store replaces the value if its version still is version, durably and
	// everywhere before it returns. revokes says that the new value takes
	// rights away: then it returns only when no command admitted under an
	// older value can take effect anywhere any more: each node calls its watcher,
	// and when that has returned, waits for or refuses what was handed to the
	// disk under the older value. It returns ErrStale when
	// the version has moved, and otherwise an error that leaves the outcome open.
	Store(ctx context.Context, value []byte, version uint64, revokes bool) error

	// Watch registers f, to be called after every change of the value, with no
	// lock held, when Load gives the new one. When f has returned, the unit hands
	// no command to the disk any more that an older value allows and this one
	// does not. There is one watcher per unit; nil removes it.
	Watch(f func())
}

// Syncer is Reservations that others may change at other nodes. Without it Load
// always gives the present value.
type Syncer interface {
	// Sync calls done, from any goroutine, when Load gives what was agreed upon
	// before the call, or something newer; or with the reason why that can't be
	// known now. It does not block.
	Sync(done func(error))
}
