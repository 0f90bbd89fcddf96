package cli

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"petal/appliance"
	"petal/appliance/config"
	"petal/target/lun"
)

const packaging = "../../packaging/"

// unitFile reads a systemd unit: key -> values in their order.
func unitFile(t *testing.T, name string) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(packaging + name)
	if err != nil {
		t.Fatal(err)
	}
	unit := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(key, "#") {
			unit[key] = append(unit[key], value)
		}
	}
	return unit
}

// TestUnit: the unit's commands are ones that the binary understands, its
// directories are the defaults, and its time limits leave room for ours.
func TestUnit(t *testing.T) {
	unit := unitFile(t, "petal.service")
	for _, key := range []string{"ExecStartPre", "ExecStart"} {
		words := strings.Fields(unit[key][0])
		if _, err := reorder(newApp(nil, nil, nil), words); err != nil {
			t.Errorf("%s=%s: %v", key, unit[key][0], err)
		}
		if !slices.Contains(words, config.DefaultFile) {
			t.Errorf("%s does not name %s", key, config.DefaultFile)
		}
	}
	if !strings.HasSuffix(unit["ExecStartPre"][0], " config check "+config.DefaultFile) {
		t.Error("the unit does not check the configuration before it starts")
	}
	if unit["Type"][0] != "notify" || unit["WatchdogSec"] == nil {
		t.Error("Type=notify and WatchdogSec= belong together with what serve tells")
	}
	stop, err := time.ParseDuration(unit["TimeoutStopSec"][0] + "s")
	if need := config.DefaultDrainTimeout + appliance.CloseLimit; err != nil || stop < need {
		t.Errorf("TimeoutStopSec=%s; draining and closing may take %v", unit["TimeoutStopSec"][0], need)
	}
	if dir := "/var/lib/" + unit["StateDirectory"][0]; dir != config.DefaultDir {
		t.Errorf("StateDirectory is %s, the default node.dir %s", dir, config.DefaultDir)
	}
	if dir := "/run/" + unit["RuntimeDirectory"][0]; dir != filepath.Dir(config.DefaultSocket) {
		t.Errorf("RuntimeDirectory is %s, the default admin.socket %s", dir, config.DefaultSocket)
	}
}

// TestShippedConfig: what the package installs is right and agrees with the unit.
func TestShippedConfig(t *testing.T) {
	conf, err := config.Load(packaging + "petal.toml")
	if err != nil {
		t.Fatal(err)
	}
	if conf.Node.Dir != config.DefaultDir || conf.Admin.Socket != config.DefaultSocket || !strings.HasPrefix(conf.Bricks[0].Path, config.DefaultDir+"/") {
		t.Errorf("the shipped configuration leaves the unit's directories: %+v", conf)
	}
	for _, p := range conf.Portals {
		if !strings.HasPrefix(p.Listen, "127.0.0.1:") {
			t.Errorf("the shipped configuration listens on %s before anybody has set an access list", p.Listen)
		}
	}
}

// TestMultipath: dm-multipath knows our disks by the vendor that INQUIRY gives.
func TestMultipath(t *testing.T) {
	text, err := os.ReadFile(packaging + "multipath/petal.conf")
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"vendor": `"` + lun.Vendor + `"`, "prio": "alua", "path_grouping_policy": "group_by_prio",
		"failback": "immediate", "fast_io_fail_tmo": "5", "no_path_retry": "18", "path_selector": `"service-time 0"`} {
		m := regexp.MustCompile(`(?m)^\s*` + key + `\s+(.*)$`).FindStringSubmatch(string(text))
		if m == nil || m[1] != want {
			t.Errorf("%s is %q, want %s", key, m, want)
		}
	}
}

// TestExampleAtRoot: the example that people see first is the one that the binary prints.
func TestExampleAtRoot(t *testing.T) {
	text, err := os.ReadFile("../../petal.toml.example")
	if err != nil || string(text) != config.Example {
		t.Errorf("petal.toml.example at the root is not what `petal config example` prints (%v)", err)
	}
}

// TestMakefile: every target says what it is for, so that `make` can list it.
func TestMakefile(t *testing.T) {
	text, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"build", "demo", "test", "bench", "soak", "fuzz", "lint"} {
		if !regexp.MustCompile(`(?m)^` + name + `:.*## .+`).Match(text) {
			t.Errorf("make does not list %q: it needs a ## comment", name)
		}
	}
}
