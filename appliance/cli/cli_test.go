package cli

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/urfave/cli/v2"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"petal": func() { os.Exit(Main()) }, relaxedCommand: relaxed})
}

var rewrite = flag.Bool("rewrite", false, "rewrite what the scripts compare with")

func TestReorder(t *testing.T) {
	app := newApp(nil, nil, nil)
	for _, c := range []struct{ in, want, wantErr string }{
		{in: "petal", want: "petal"},
		{in: "petal disk create data --size 10G", want: "petal disk create --size 10G -- data"},
		{in: "petal disk create --size=10G data --json", want: "petal disk create --size=10G --json -- data"},
		{in: "petal disk --json list", want: "petal disk list --json"},
		{in: "petal --admin a disk show x --json", want: "petal disk show --admin a --json -- x"},
		{in: "petal --size 1 disk list", wantErr: "petal disk list: unknown flag --size"},
		{in: "petal --sise 1 disk create data", wantErr: "petal: unknown flag --sise"},
		{in: "petal disk resize data 1G --shrink", want: "petal disk resize --shrink -- data 1G"},
		{in: "petal disk show -- -odd", want: "petal disk show -- -odd"},
		{in: "petal disk show -odd", wantErr: "petal disk show: unknown flag -odd"},
		{in: "petal disk show data --size", wantErr: "petal disk show: unknown flag --size"},
		{in: "petal disk create data --size", wantErr: "petal disk create: flag --size needs a value"},
		{in: "petal target chap iqn --user u --secret-file -", want: "petal target chap --user u --secret-file - -- iqn"},
		{in: "petal disk delete data --force", want: "petal disk delete --force -- data"},
		{in: "petal target acl t --add a --add b", want: "petal target acl --add a --add b -- t"},
		{in: "petal dsk", wantErr: `petal: unknown command "dsk"`},
		{in: "petal disk crate", wantErr: `petal disk: unknown command "crate"`},
		{in: "petal -h", want: "petal -h"},
		{in: "petal disk list --generate-bash-completion", want: "petal disk list --generate-bash-completion"},
	} {
		out, err := reorder(app, strings.Fields(c.in))
		if got := strings.Join(out, " "); got != c.want {
			t.Errorf("%q: %q, want %q", c.in, got, c.want)
		}
		if got := fmt.Sprint(err); c.wantErr != "" && got != c.wantErr || c.wantErr == "" && err != nil {
			t.Errorf("%q: error %q, want %q", c.in, got, c.wantErr)
		}
	}
}

// TestFlagsAfterArguments runs every command of the tree with its flags behind
// its arguments: none may be lost.
func TestFlagsAfterArguments(t *testing.T) {
	app := newApp(nil, nil, nil)
	var walk func(path []string, commands []*cli.Command)
	walk = func(path []string, commands []*cli.Command) {
		for _, c := range commands {
			here := append(slices.Clone(path), c.Name)
			walk(here, c.Subcommands)
			if len(c.Subcommands) > 0 {
				continue
			}
			in, want := append(slices.Clone(here), "arg"), slices.Clone(here)
			for _, f := range c.Flags {
				words := []string{"--" + f.Names()[0]}
				if _, isBool := f.(*cli.BoolFlag); !isBool {
					words = append(words, "value")
				}
				in, want = append(in, words...), append(want, words...)
			}
			want = append(want, "--", "arg")
			if got, err := reorder(app, in); err != nil || !slices.Equal(got, want) {
				t.Errorf("%q: %q, %v; want %q", in, got, err, want)
			}
		}
	}
	walk([]string{"petal"}, app.Commands)
}

// TestHelp: every command says what it is for, and every flag too.
func TestHelp(t *testing.T) {
	var walk func(path string, commands []*cli.Command)
	walk = func(path string, commands []*cli.Command) {
		for _, c := range commands {
			here := path + " " + c.Name
			if c.Usage == "" {
				t.Errorf("%s has no usage text", here)
			}
			for _, f := range c.Flags {
				if d, ok := f.(cli.DocGenerationFlag); !ok || d.GetUsage() == "" {
					t.Errorf("%s --%s has no usage text", here, f.Names()[0])
				}
			}
			walk(here, c.Subcommands)
		}
	}
	walk("petal", newApp(nil, nil, nil).Commands)
}
