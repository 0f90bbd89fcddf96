package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"petal/appliance/api"
)

func (s streams) target() *cli.Command {
	return group("target", "list targets, map disks, say who may log in",
		s.targetList(), s.targetShow(), s.targetCreate(), s.targetDelete(), s.targetMap(), s.targetUnmap(), s.targetACL(), s.targetCHAP())
}

func showTarget(w io.Writer, t api.Target) {
	facts(w,
		"name", t.Name,
		"luns", luns(t),
		"initiators", initiators(t),
		"chap", chapText(t.CHAP),
		"sessions", fmt.Sprintf("%d at this node", t.Sessions))
}

func luns(t api.Target) string {
	parts := make([]string, len(t.LUNs))
	for i, l := range t.LUNs {
		parts[i] = fmt.Sprintf("%d=%s", l.Number, l.Disk)
	}
	return orDash(strings.Join(parts, " "))
}

func initiators(t api.Target) string {
	if len(t.Initiators) == 0 {
		return "all"
	}
	return strings.Join(t.Initiators, " ")
}

func chapText(a api.CHAP) string {
	switch {
	case a.User == "":
		return "off"
	case a.MutualUser == "":
		return "user " + a.User
	}
	return "user " + a.User + ", mutual user " + a.MutualUser
}
