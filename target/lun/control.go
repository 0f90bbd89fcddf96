package lun

import (
	"encoding/binary"
	"slices"

	"petal/target/scsi"
)

func beginModeSense(c *Command) {
	u := c.path.unit
	long := c.row.Len == 10
	page, subpage := c.CDB[2]&0x3F, c.CDB[3]
	control := scsi.PageControl(c.CDB[2] >> 6)
	if control == scsi.PageSaved {
		c.illegal(scsi.CodeSavingNotSupported)
		return
	}
	values := u.modeValues()
	if control == scsi.PageDefault {
		values = scsi.ModeValues{WriteCache: values.WriteCache}
	}
	const dbd, llbaa = 0x08, 0x10
	descriptor := 8
	switch {
	case c.CDB[1]&dbd != 0:
		descriptor = 0
	case long && c.CDB[1]&llbaa != 0:
		descriptor = 16
	}
	specific := scsi.ModeDPOFUA
	if u.writeProtected() {
		specific |= scsi.ModeWP
	}
	data := scsi.AppendModeHeader(nil, long, specific, descriptor, u.capacity())
	data, ok := scsi.AppendModePages(data, page, subpage, control, values)
	if !ok {
		if subpage != scsi.SubpageNone && subpage != scsi.SubpageAll {
			c.badField(3, -1)
		} else {
			c.badField(2, 5)
		}
		return
	}
	scsi.CloseMode(data, long)
	c.answer(data, scsi.CDB(c.CDB).Length())
}

func (u *Unit) modeValues() scsi.ModeValues {
	return scsi.ModeValues{
		WriteCache:      u.disk.WriteCache(),
		DescriptorSense: u.modes.descriptorSense(),
		SoftwareProtect: u.modes.softwareProtect(),
		TaskAborted:     u.modes.taskAborted(),
	}
}

// modeListMax is the longest MODE SELECT parameter list that is read.
const modeListMax = 1024

func beginModeSelect(c *Command) {
	const pf, sp = 0x10, 0x01
	switch {
	case c.CDB[1]&sp != 0:
		c.badField(1, 0) // nothing is saved
	case c.CDB[1]&pf == 0:
		c.badField(1, 4) // there are no vendor specific pages
	default:
		c.takeParam(scsi.CDB(c.CDB).Length(), modeListMax)
	}
}

func runModeSelect(c *Command) {
	if !c.gotAll() {
		return
	}
	u := c.path.unit
	values, e := scsi.ParseModeSelect(c.param, c.row.Len == 10, u.modeValues(), u.capacity())
	if e != nil {
		c.paramError(e, false)
		c.Done(c)
		return
	}
	if u.modes.set(values) {
		for _, p := range u.allPaths() {
			if p != c.path {
				p.attention.establish(attentionModeChanged)
			}
		}
	}
	c.finish(scsi.StatusGood)
}

func beginLogSense(c *Command) {
	page, subpage := c.CDB[2]&0x3F, c.CDB[3]
	first := binary.BigEndian.Uint16(c.CDB[5:])
	allocation := scsi.CDB(c.CDB).Length()
	switch {
	case c.CDB[1]&1 != 0:
		c.badField(1, 0) // SP: nothing is saved
	case subpage != scsi.SubpageNone:
		c.badField(3, -1)
	case page == scsi.LogSupported && first == 0:
		c.answer(scsi.AppendLogSupported(nil), allocation)
	case page == scsi.LogProvisioning && first <= 2:
		c.answer(c.path.unit.logProvisioning(first), allocation)
	case page == scsi.LogSupported || page == scsi.LogProvisioning:
		c.badField(5, -1)
	default:
		c.badField(2, 5)
	}
}

// logProvisioning is log page 0Ch; counts are threshold sets of 1 MiB.
func (u *Unit) logProvisioning(first uint16) []byte {
	used, available, _, _ := u.disk.Usage()
	set := u.block << thresholdExp(u.block)
	return scsi.AppendLogProvisioning(nil, first,
		uint32(min(available/set, 0xFFFFFFFF)), uint32(min((used+set-1)/set, 0xFFFFFFFF)))
}

// beginStartStop accepts what a disk that is always ready can do: start, and
// the power conditions that mean being ready.
func beginStartStop(c *Command) {
	const (
		active    = 0x1
		luControl = 0x7
		loej      = 0x02
		start     = 0x01
	)
	switch power := c.CDB[4] >> 4; power {
	case 0:
		switch {
		case c.CDB[4]&loej != 0:
			c.badField(4, 1) // not removable
		case c.CDB[4]&start == 0:
			c.badField(4, 0) // other hosts use the disk
		default:
			c.status(scsi.StatusGood)
		}
	case active, luControl:
		c.status(scsi.StatusGood)
	default:
		c.badField(4, 7)
	}
}

func beginPreventAllow(c *Command) {
	if c.CDB[4]&2 != 0 {
		c.badField(4, 1)
		return
	}
	// The medium is not removable, so there is nothing to prevent.
	c.path.prevented.Store(c.CDB[4]&1 != 0)
	c.status(scsi.StatusGood)
}

// beginReadDefectData answers with empty lists.
func beginReadDefectData(c *Command) {
	if c.row.Len == 10 {
		c.answer([]byte{0, c.CDB[2] & 0x1F, 0, 0}, scsi.CDB(c.CDB).Length())
		return
	}
	c.answer([]byte{0, c.CDB[1] & 0x1F, 0, 0, 0, 0, 0, 0}, scsi.CDB(c.CDB).Length())
}

// beginSendDiagnostic accepts the default self-test, which always passes.
func beginSendDiagnostic(c *Command) {
	switch {
	case c.CDB[1]>>5 != 0:
		c.badField(1, 7) // SELF-TEST CODE
	case c.CDB[3]|c.CDB[4] != 0:
		c.badField(3, -1) // no pages to send
	default:
		c.status(scsi.StatusGood)
	}
}

// beginReceiveDiagnostic has one page, that of the supported pages.
func beginReceiveDiagnostic(c *Command) {
	if c.CDB[1]&1 != 0 && c.CDB[2] != 0 {
		c.badField(2, -1)
		return
	}
	c.answer([]byte{0, 0, 0, 1, 0}, allocationOfInquiry(c.CDB))
}

// transitionSeconds is the implicit transition time of REPORT TARGET PORT
// GROUPS: a failover ends within it (INITIATORS: 6 s at worst).
const transitionSeconds = 6

func beginReportTPG(c *Command) {
	format := c.CDB[1] >> 5
	if format > 1 {
		c.badField(1, 7)
		return
	}
	_, groups := c.nexus.portGroups()
	data := scsi.AppendPortGroups(nil, format == 1, transitionSeconds, groups)
	c.answer(data, binary.BigEndian.Uint32(c.CDB[6:]))
}

// groupsMax is the longest SET TARGET PORT GROUPS parameter list that is read.
const groupsMax = 4 + 4*64

func beginSetTPG(c *Command) { c.takeParam(binary.BigEndian.Uint32(c.CDB[6:]), groupsMax) }

// runSetTPG accepts only what is so already: access states are managed
// implicitly.
func runSetTPG(c *Command) {
	if !c.gotAll() {
		return
	}
	_, groups := c.nexus.portGroups()
	for at := 4; at < len(c.param); at += 4 {
		if at+4 > len(c.param) {
			c.illegal(scsi.CodeParameterListLength)
			c.Done(c)
			return
		}
		d := c.param[at:]
		if !slices.ContainsFunc(groups, func(g scsi.PortGroup) bool { return d[0]&0xF == g.State && binary.BigEndian.Uint16(d[2:]) == g.Group }) {
			c.badParam(at, -1)
			c.Done(c)
			return
		}
	}
	c.finish(scsi.StatusGood)
}

func beginReportOpcodes(c *Command) {
	const rctdBit = 0x80
	rctd := c.CDB[2]&rctdBit != 0
	options := c.CDB[2] & 7
	allocation := binary.BigEndian.Uint32(c.CDB[6:])
	switch {
	case options == scsi.ReportAllCommands:
		c.answer(scsi.AppendAllCommands(nil, rctd), allocation)
	case options > scsi.ReportEither:
		c.badField(2, 2)
	default:
		data, ok := scsi.AppendOneCommand(nil, options, scsi.Opcode(c.CDB[3]), binary.BigEndian.Uint16(c.CDB[4:]), rctd)
		if !ok {
			c.badField(2, 2)
			return
		}
		c.answer(data, allocation)
	}
}

func beginReportTMFs(c *Command) {
	c.answer(scsi.AppendTMFs(nil, c.CDB[2]&0x80 != 0), binary.BigEndian.Uint32(c.CDB[6:]))
}
