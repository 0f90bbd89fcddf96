package login

import "petal/target/iscsi"

// lead judges the leading request: who is this, what does it want, and may it
// (sections 6.3.1 and 11.13.5). Afterwards the Machine is in the stage that the
// request names.
func (m *Machine) lead(pairs []iscsi.Pair) *refusal {
	if no := m.identify(pairs); no != nil {
		return no
	}
	m.admission = m.cfg.Authority.Admit(m.result.Initiator, m.result.Target)
	if no := m.admitted(); no != nil {
		return no
	}
	l := m.first.LoginRequest()
	m.result.ISID, m.result.CID, m.result.PortalGroup = l.ISID(), l.CID(), m.admission.PortalGroup
	if no := m.findSession(l.TSIH(), l.CID()); no != nil {
		return no
	}
	m.keys.init(m.result.Discovery)
	if m.auth.chap = m.admission.CHAP; m.auth.chap != nil {
		if err := m.auth.chap.Validate(); err != nil {
			return refuse(iscsi.LoginTargetError, "configured CHAP: %v", err)
		}
	}
	if l.CSG() == iscsi.StageSecurity {
		m.become(security)
		return nil
	}
	if m.auth.chap != nil {
		return refuse(iscsi.LoginAuthFailure, "initiator skips authentication")
	}
	m.become(operational)
	return nil
}

// identify takes the names and the session type.
func (m *Machine) identify(pairs []iscsi.Pair) *refusal {
	name, ok := iscsi.Lookup(pairs, "InitiatorName")
	if !ok {
		return refuse(iscsi.LoginMissingParameter, "no InitiatorName")
	}
	initiator, err := iscsi.NormalizeName(name)
	if err != nil {
		return refuse(iscsi.LoginInitiatorError, "InitiatorName: %v", err)
	}
	m.result.Initiator = initiator
	m.result.InitiatorAlias, _ = iscsi.Lookup(pairs, "InitiatorAlias")

	// "The default is Normal" (section 13.21).
	switch kind, ok := iscsi.Lookup(pairs, "SessionType"); {
	case !ok || kind == "Normal":
	case kind == "Discovery":
		m.result.Discovery = true
		return nil // a TargetName has no meaning there
	default:
		return refuse(iscsi.LoginSessionType, "SessionType %q", kind)
	}
	name, ok = iscsi.Lookup(pairs, "TargetName")
	if !ok {
		return refuse(iscsi.LoginMissingParameter, "no TargetName in a normal session")
	}
	if m.result.Target, err = iscsi.NormalizeName(name); err != nil {
		return refuse(iscsi.LoginNotFound, "TargetName: %v", err)
	}
	return nil
}

// admitted turns the Authority's decision into a refusal, or none.
func (m *Machine) admitted() *refusal {
	a := &m.admission
	if a.Status == iscsi.LoginSuccess {
		return nil
	}
	no := refuse(a.Status, "decided for %s at %q", m.result.Initiator, m.result.Target)
	if a.Status.Class() != iscsi.LoginMovedTemporarily.Class() {
		return no
	}
	if a.Redirect == "" {
		return refuse(iscsi.LoginTargetError, "redirection without an address")
	}
	no.text = []iscsi.Pair{{Key: "TargetAddress", Value: a.Redirect}}
	return no
}

// findSession is the table of section 6.3.1:
//
//	ISID      TSIH              CID       action
//	--------  ----------------  --------  ------------------------------------------
//	new       zero              any       new session
//	existing  zero              any       session reinstatement
//	any       that of none      any       fail: session does not exist
//	existing  that of the ISID  new       fail: too many connections (we have one)
//	existing  that of the ISID  existing  fail: connection reinstatement is for
//	                                      ErrorRecoveryLevel 2
func (m *Machine) findSession(tsih, cid uint16) *refusal {
	existing, ok := m.cfg.Sessions.Connection(m.result.Nexus(), tsih)
	switch {
	case tsih == 0:
		m.result.Reinstates = ok
		return nil
	case !ok:
		return refuse(iscsi.LoginNoSession, "TSIH %d", tsih)
	case existing == cid:
		return refuse(iscsi.LoginCantInclude, "reinstatement of connection %d of session %d", cid, tsih)
	}
	return refuse(iscsi.LoginTooManyConnections, "second connection %d for session %d", cid, tsih)
}
