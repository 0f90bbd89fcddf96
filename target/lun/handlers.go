package lun

import "petal/target/scsi"

// handlers has one entry for each scsi.Kind. It is filled by init, not in its
// declaration, because the handlers refer to it through Run.
var handlers [scsi.KindCount]handler

func init() {
	handlers = [scsi.KindCount]handler{
		scsi.KindTestUnitReady:     {begin: beginTestUnitReady},
		scsi.KindRequestSense:      {begin: beginRequestSense},
		scsi.KindInquiry:           {begin: beginInquiry},
		scsi.KindReportLUNs:        {begin: beginReportLUNs},
		scsi.KindRead:              {begin: beginRead, run: runRead},
		scsi.KindWrite:             {begin: beginWrite, run: runWrite},
		scsi.KindWriteAtomic:       {begin: beginWriteAtomic, run: runWrite},
		scsi.KindOrWrite:           {begin: beginOrWrite, run: runOrWrite},
		scsi.KindVerify:            {begin: beginVerify, run: runVerify},
		scsi.KindWriteVerify:       {begin: beginWriteVerify, run: runWriteVerify},
		scsi.KindCompareAndWrite:   {begin: beginCompareAndWrite, run: runCompareAndWrite},
		scsi.KindWriteSame:         {begin: beginWriteSame, run: runWriteSame},
		scsi.KindUnmap:             {begin: beginUnmap, run: runUnmap},
		scsi.KindSyncCache:         {begin: beginSyncCache, run: runSyncCache},
		scsi.KindPrefetch:          {begin: beginPrefetch},
		scsi.KindReadCapacity10:    {begin: beginReadCapacity10},
		scsi.KindReadCapacity16:    {begin: beginReadCapacity16},
		scsi.KindGetLBAStatus:      {begin: beginGetLBAStatus, run: runGetLBAStatus},
		scsi.KindModeSense:         {begin: beginModeSense},
		scsi.KindModeSelect:        {begin: beginModeSelect, run: runModeSelect},
		scsi.KindLogSense:          {begin: beginLogSense},
		scsi.KindStartStop:         {begin: beginStartStop},
		scsi.KindPreventAllow:      {begin: beginPreventAllow},
		scsi.KindReadDefectData:    {begin: beginReadDefectData},
		scsi.KindSendDiagnostic:    {begin: beginSendDiagnostic},
		scsi.KindReceiveDiagnostic: {begin: beginReceiveDiagnostic},
		scsi.KindReportTPG:         {begin: beginReportTPG},
		scsi.KindSetTPG:            {begin: beginSetTPG, run: runSetTPG},
		scsi.KindReportOpcodes:     {begin: beginReportOpcodes},
		scsi.KindReportTMFs:        {begin: beginReportTMFs},
		scsi.KindPersistentIn:      {begin: beginPersistentIn, run: runPersistentIn},
		scsi.KindPersistentOut:     {begin: beginPersistentOut, run: runPersistentOut},
		scsi.KindReserve:           {begin: beginReserve, run: runReserve},
		scsi.KindRelease:           {begin: beginReserve, run: runRelease},
	}
}
