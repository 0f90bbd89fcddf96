package login

import (
	"slices"
	"strings"

	"io"

	"petal/target/iscsi"
)

// authState is how far authentication has come.
//
//	start --AuthMethod=None--> passed            nothing required
//	start --AuthMethod=CHAP--> chosen --CHAP_A--> challenged --CHAP_N, CHAP_R--> passed
type authState uint8

const (
	authStart authState = iota
	authChosen
	authChallenged
	authPassed
)

// authenticator is the security stage (section 12).
type authenticator struct {
	chap  *CHAP // nil: authentication is not required
	state authState
	user  string

	algorithm Algorithm
	id        byte
	challenge []byte
}

// passed reports whether the initiator may leave the security stage.
func (a *authenticator) passed() bool { return a.state == authPassed || a.chap == nil }

// securityKeys are the keys that belong to the authenticator.
var securityKeys = []string{"AuthMethod", "CHAP_A", "CHAP_I", "CHAP_C", "CHAP_N", "CHAP_R"}

// step takes the security keys out of pairs and answers them. transit says that
// the initiator wants to leave the stage.
func (a *authenticator) step(pairs []iscsi.Pair, transit bool, random io.Reader) (answers, rest []iscsi.Pair, no *refusal) {
	var mine []iscsi.Pair
	for _, p := range pairs {
		if slices.Contains(securityKeys, p.Key) {
			mine = append(mine, p)
		} else {
			rest = append(rest, p)
		}
	}
	if len(mine) == 0 {
		if transit && !a.passed() {
			return nil, nil, refuse(iscsi.LoginAuthFailure, "initiator skips authentication")
		}
		return nil, rest, nil
	}
	switch a.state {
	case authStart:
		answers, no = a.choose(mine)
	case authChosen:
		answers, no = a.offerChallenge(mine, random)
	case authChallenged:
		answers, no = a.verify(mine)
	default:
		no = refuse(iscsi.LoginInitiatorError, "%s after authentication", mine[0].Key)
	}
	return answers, rest, no
}

// choose answers AuthMethod: the initiator's first choice that we accept
// (section 12.1). "None" is accepted where nothing is required, and only there.
func (a *authenticator) choose(mine []iscsi.Pair) ([]iscsi.Pair, *refusal) {
	if no := expect(mine, "AuthMethod"); no != nil {
		return nil, no
	}
	want, next := "None", authPassed
	if a.chap != nil {
		want, next = "CHAP", authChosen
	}
	if !slices.Contains(strings.Split(mine[0].Value, ","), want) {
		return nil, refuse(iscsi.LoginAuthFailure, "initiator offers AuthMethod=%s, %s is configured", mine[0].Value, want)
	}
	a.state = next
	return []iscsi.Pair{{Key: "AuthMethod", Value: want}}, nil
}

// expect checks that mine are exactly these keys, in any order, and sorts them
// in this one.
func expect(mine []iscsi.Pair, keys ...string) *refusal {
	for i, k := range keys {
		at := slices.IndexFunc(mine, func(p iscsi.Pair) bool { return p.Key == k })
		if at < 0 {
			return refuse(iscsi.LoginInitiatorError, "%s comes where %s is due", mine[0].Key, strings.Join(keys, ", "))
		}
		mine[i], mine[at] = mine[at], mine[i]
	}
	if len(mine) > len(keys) {
		return refuse(iscsi.LoginInitiatorError, "%s comes where %s is due", mine[len(keys)].Key, strings.Join(keys, ", "))
	}
	return nil
}
