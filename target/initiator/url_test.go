package initiator

import (
	"strings"
	"testing"
)

func TestParseURL(t *testing.T) {
	for text, want := range map[string]URL{
		"iscsi://host/iqn.2026-11.petal:a/3":                        {Host: "host:3260", Target: "iqn.2026-11.petal:a", LUN: 3},
		"iscsi://127.0.0.1:13260/iqn.2026-11.petal:a/0":             {Host: "127.0.0.1:13260", Target: "iqn.2026-11.petal:a"},
		"iscsi://[::1]:1/iqn.x/0":                                   {Host: "[::1]:1", Target: "iqn.x"},
		"iscsi://[::1]/iqn.x/0":                                     {Host: "[::1]:3260", Target: "iqn.x"},
		"iscsi://anna%se@cret@host/iqn.x/16383":                     {User: "anna", Secret: "se@cret", Host: "host:3260", Target: "iqn.x", LUN: 16383},
		"iscsi://host":                                              {Host: "host:3260"},
		"iscsi://host/":                                             {Host: "host:3260"},
		"iscsi://h/iqn.x/0?target_user=t&target_password=p":         {Host: "h:3260", Target: "iqn.x", TargetUser: "t", TargetSecret: "p"},
		"iscsi://h/iqn.x/0?header_digest=crc32c&data_digest=CRC32C": {Host: "h:3260", Target: "iqn.x", HeaderDigest: true, DataDigest: true},
		"iscsi://h/iqn.x/0?header_digest=none":                      {Host: "h:3260", Target: "iqn.x"},
	} {
		if got, err := ParseURL(text); err != nil || got != want {
			t.Errorf("ParseURL(%q) = %+v, %v; want %+v", text, got, err, want)
		}
	}
}

func TestParseURLRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"":                                       "iscsi://",
		"http://host/iqn.x/0":                    "iscsi://",
		"iscsi:///iqn.x/0":                       "no host",
		"iscsi://host/iqn.x/-1":                  "no LUN",
		"iscsi://host/iqn.x/16384":               "no LUN",
		"iscsi://host/iqn.x/0/1":                 "no LUN",
		"iscsi://host/iqn.x/0?colour=blue":       "colour",
		"iscsi://host/iqn.x/0?header_digest=md5": "header_digest",
	} {
		if u, err := ParseURL(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseURL(%q) = %+v, %v; want an error with %q", text, u, err, want)
		}
	}
}

func TestURLHidesSecrets(t *testing.T) {
	u, err := ParseURL("iscsi://anna%hush@host/iqn.x/1?target_user=t&target_password=quiet")
	if err != nil {
		t.Fatal(err)
	}
	if s := u.String(); s != "iscsi://host:3260/iqn.x/1" {
		t.Errorf("String is %q", s)
	}
}

func FuzzParseURL(f *testing.F) {
	f.Add("iscsi://anna%secret@[::1]:3260/iqn.2026-11.petal:a/1?header_digest=crc32c")
	f.Add("iscsi://host")
	f.Fuzz(func(t *testing.T, text string) {
		u, err := ParseURL(text)
		if err != nil {
			return
		}
		// What it is without secrets and options must survive the round trip.
		v, err := ParseURL(u.String())
		if u.Target != "" && (err != nil || v.Host != u.Host || v.Target != u.Target || v.LUN != u.LUN) {
			t.Errorf("%q -> %q -> %+v, %v", text, u, v, err)
		}
	})
}
