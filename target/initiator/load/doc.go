// Package load drives SCSI disks over iSCSI: it measures them, and it checks
// that they keep what they acknowledged. It is `petal bench`, and it serves
// any iSCSI target, petal or not. It is not a conformance suite.
//
// Measuring: jobs (block size, depth, mix, pattern) run one after the other.
// With several URLs every job is run on each in turn, for several rounds in
// one process, so that what the machine does besides hits all of them alike;
// what counts is the median of the rounds' ratios.
//
// Verifying: each 512 bytes written carry a stamp that says which write put
// them there and where. The model knows, for every part of the disk, which
// writes a read may return, and judges every read and a last one over all:
//
//	         w7 ends        w8 begins    connection lost, made again    w8 ends
//	----------|----------------|------------------x------------------------|-----
//	may be w6 or w7 | w7       | w7 or w8 (sent again: same content)       | w8
//
// The stamp of a sector (512 bytes, big-endian):
//
//	  0  magic "PETALVFY"
//	  8  run       random number of the run (kept in the state file)
//	 16  op        number of the write, from 1
//	 24  sector    512-byte sector of the disk where it belongs
//	 32  filler    a function of run, op and sector
//	508  CRC32C of bytes 0 to 507
package load
