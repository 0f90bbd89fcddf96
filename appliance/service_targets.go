package appliance

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"

	"petal/appliance/api"
	"petal/cluster"
	"petal/cluster/meta"
)

// CHAP secrets: at least 96 bits (RFC 7143 section 12.1.4), and no more than
// every initiator can store.
const (
	minSecret = 12
	maxSecret = 255
)

func (a *appliance) Targets(context.Context) ([]api.Target, error) {
	state, sessions := a.node.State(), a.sessionsOf()
	out := []api.Target{}
	for _, t := range state.Targets() {
		out = append(out, describeTarget(state, t, sessions))
	}
	return out, nil
}

func (a *appliance) Target(_ context.Context, name string) (api.Target, error) {
	state := a.node.State()
	t := state.Target(name)
	if t == nil {
		return api.Target{}, notFound("target", name, "petal target list")
	}
	return describeTarget(state, t, a.sessionsOf()), nil
}

func describeTarget(state *meta.State, t *meta.Target, sessions map[string]int) api.Target {
	out := api.Target{Name: t.Name, LUNs: []api.LUN{}, Initiators: append([]string{}, t.ACL...), Sessions: sessions[t.Name], CHAP: describeCHAP(t.CHAP)}
	for _, l := range t.LUNs {
		name := uuid(l.Disk)
		if d := state.DiskByID(l.Disk); d != nil {
			name = d.Name
		}
		out.LUNs = append(out.LUNs, api.LUN{Number: l.Number, Disk: name})
	}
	return out
}

func describeCHAP(c meta.CHAP) api.CHAP { return api.CHAP{User: c.User, MutualUser: c.MutualUser} }

// afterChange returns the target as it is after a change.
func (a *appliance) afterChange(ctx context.Context, name, what string, err error) (api.Target, error) {
	if err := a.changed(err); err != nil {
		return api.Target{}, err
	}
	a.log.Info("target changed", "target", name, "what", what)
	return a.Target(ctx, name)
}

func (a *appliance) CreateTarget(ctx context.Context, name string) (api.Target, error) {
	return a.afterChange(ctx, name, "created", a.node.CreateTarget(ctx, name))
}

func (a *appliance) DeleteTarget(ctx context.Context, name string, force bool) error {
	t, err := a.idleTarget(ctx, name, force)
	if err != nil {
		return err
	}
	for _, l := range t.LUNs {
		if err := a.node.UnmapLUN(ctx, name, l.Number); err != nil {
			return a.changed(err)
		}
	}
	if err := a.changed(a.node.DeleteTarget(ctx, name)); err != nil {
		return err
	}
	a.log.Info("target deleted", "target", name, "force", force)
	return nil
}

// idleTarget returns a target that nobody uses, or any with force.
func (a *appliance) idleTarget(ctx context.Context, name string, force bool) (api.Target, error) {
	t, err := a.Target(ctx, name)
	if err == nil && !force {
		err = a.idle(ctx, fmt.Sprintf("target %q", name), func(*meta.State) []string { return []string{name} })
	}
	return t, err
}

func (a *appliance) MapLUN(ctx context.Context, name string, lun *uint16, disk string) (api.Target, error) {
	_, err := a.node.MapLUN(ctx, name, disk, lun)
	return a.afterChange(ctx, name, "mapped "+disk, err)
}

func (a *appliance) UnmapLUN(ctx context.Context, name string, lun uint16, force bool) error {
	if _, err := a.idleTarget(ctx, name, force); err != nil {
		return err
	}
	_, err := a.afterChange(ctx, name, fmt.Sprintf("unmapped %d", lun), a.node.UnmapLUN(ctx, name, lun))
	return err
}

func (a *appliance) SetACL(ctx context.Context, name string, initiators []string) (api.Target, error) {
	return a.afterChange(ctx, name, "access list", a.node.SetACL(ctx, name, initiators))
}

func (a *appliance) SetCHAP(ctx context.Context, name string, account api.CHAPAccount) (api.Target, error) {
	if err := checkAccount(account); err != nil {
		return api.Target{}, err
	}
	if _, err := a.Target(ctx, name); err != nil {
		return api.Target{}, err
	}
	return a.afterChange(ctx, name, "chap", a.node.SetCHAP(ctx, name, cluster.Account(account)))
}

func (a *appliance) DiscoveryCHAP(context.Context) (api.CHAP, error) {
	return describeCHAP(a.node.State().Discovery()), nil
}

func (a *appliance) SetDiscoveryCHAP(ctx context.Context, account api.CHAPAccount) error {
	if err := checkAccount(account); err != nil {
		return err
	}
	if err := a.changed(a.node.SetCHAP(ctx, "", cluster.Account(account))); err != nil {
		return err
	}
	a.log.Info("discovery chap changed")
	return nil
}

// checkAccount checks what the node, which sees sealed secrets, can't.
func checkAccount(c api.CHAPAccount) error {
	invalid := func(advice, format string, args ...any) error {
		return &api.Error{Kind: api.Invalid, Message: fmt.Sprintf(format, args...), Advice: advice}
	}
	if c.User == "" {
		if c != (api.CHAPAccount{}) {
			return invalid("give the initiator's user and secret too", "CHAP account without a user")
		}
		return nil
	}
	for _, s := range []struct{ user, secret string }{{c.User, c.Secret}, {c.MutualUser, c.MutualSecret}} {
		if n := len(s.secret); s.user != "" && (n < minSecret || n > maxSecret) {
			return invalid("some initiators take only 12 to 16 bytes: 16 random letters and digits suit all", "CHAP secret of user %q: %d bytes; it must have %d to %d", s.user, n, minSecret, maxSecret)
		}
	}
	if c.MutualUser == "" && c.MutualSecret != "" {
		return invalid("give the target's user too", "mutual CHAP secret without a user")
	}
	if c.MutualUser != "" && c.MutualSecret == c.Secret {
		return invalid("with equal secrets each side could answer with what it was asked (RFC 7143 section 12.1.4)", "CHAP secrets of both directions are the same")
	}
	return nil
}

func (a *appliance) Sessions(context.Context) ([]api.Session, error) {
	out := []api.Session{}
	for _, s := range a.server.Sessions() {
		out = append(out, api.Session{ID: strconv.Itoa(int(s.TSIH)), Target: s.Target, Initiator: s.Initiator, ISID: fmt.Sprintf("%x", s.ISID[:]), TSIH: s.TSIH,
			Remote: s.Remote, Portal: s.Portal, HeaderDigest: s.HeaderDigest, DataDigest: s.DataDigest, Since: s.Since, Outstanding: s.Outstanding})
	}
	slices.SortFunc(out, func(x, y api.Session) int {
		return cmp.Or(cmp.Compare(x.Target, y.Target), cmp.Compare(x.Initiator, y.Initiator), cmp.Compare(x.TSIH, y.TSIH))
	})
	return out, nil
}

func (a *appliance) KillSession(_ context.Context, id string) error {
	tsih, err := strconv.ParseUint(id, 10, 16)
	if err != nil || !a.server.KillSession(uint16(tsih)) {
		return notFound("session", id, "petal session list")
	}
	a.log.Info("session killed", "tsih", tsih)
	return nil
}
