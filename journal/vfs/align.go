package vfs

import "unsafe"

// AlignedBuffer returns n zero bytes of memory that begin at a multiple of
// BlockSize, as files opened with Direct want it. The memory is the garbage
// collector's; hot paths use slabs instead.
func AlignedBuffer(n int) []byte {
	if n == 0 {
		return nil
	}
	raw := make([]byte, n+BlockSize-1)
	shift := int(-uintptr(unsafe.Pointer(&raw[0])) & (BlockSize - 1))
	return raw[shift : shift+n : shift+n]
}

// Aligned reports whether p may be read or written at off in a file opened with
// Direct.
func Aligned(p []byte, off int64) bool {
	if len(p) == 0 {
		return off%BlockSize == 0
	}
	address := uintptr(unsafe.Pointer(&p[0]))
	return (address|uintptr(len(p))|uintptr(off))&(BlockSize-1) == 0
}
