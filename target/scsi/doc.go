// Package scsi holds the formats of SCSI block storage as pure functions:
// CDBs and the table of supported commands, sense data, INQUIRY and vital
// product data, mode and log pages, persistent reservation data, TransportIDs,
// and the parameter lists of UNMAP, GET LBA STATUS and REPORT TARGET PORT
// GROUPS. References are to SPC-4 (revision 37), SBC-3 (revision 36), SAM-5
// and, for WRITE ATOMIC, SBC-4.
//
// It keeps no state, does no I/O and decides nothing about a logical unit:
// that is package lun. Whatever comes from an initiator is parsed here with
// its length checked first; a parser never panics and never takes memory in
// proportion to a length field that it has not compared with the data at hand.
//
//	 initiator                   this package                     package lun
//	CDB --------------> Lookup (one row per command) ----------> handler by Kind
//	parameter list ---> Parse... (bounded) --------------------> request
//	                    Append..., ...Page <-------------------- parameter data
//	sense data <------- Sense.Append <-------------------------- Sense
package scsi
