package lun

import "petal/target/scsi"

// handlers has one entry for each scsi.Kind. It is filled by an init function
// only because the handlers refer to it through Run.
var handlers [scsi.KindCount]handler

func init() {
	handlers = [scsi.KindCount]handler{
		scsi.KindTestUnitReady:  {begin: beginTestUnitReady},
		scsi.KindRequestSense:   {begin: beginRequestSense},
		scsi.KindInquiry:        {begin: beginInquiry},
		scsi.KindReportLUNs:     {begin: beginReportLUNs},
		scsi.KindRead:           {begin: beginRead, run: runRead},
		scsi.KindWrite:          {begin: beginWrite, run: runWrite},
		scsi.KindReadCapacity10: {begin: beginReadCapacity10},
		scsi.KindReadCapacity16: {begin: beginReadCapacity16},
	}
}
