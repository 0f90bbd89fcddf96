package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"petal/appliance/config"
)

// completionFlag is what urfave/cli's completion scripts append.
const completionFlag = "--generate-bash-completion"

// reorder moves flags in front of arguments. The flag package underneath stops
// at the first argument: `disk create data --size 10G` would leave the size
// empty without a word. It also refuses, with the nearest name, what the
// command tree does not know, and arguments that begin with a dash: those are
// flags gone wrong. After a "--" everything is an argument. A command's flag may
// even stand before the command: `petal --admin SOCKET status`.
func reorder(app *cli.App, argv []string) ([]string, error) {
	if len(argv) == 0 || argv[len(argv)-1] == completionFlag {
		return argv, nil
	}
	path, flags, args := []string{app.Name}, []string{}, []string{}
	known, commands := appFlags(), app.Commands
	words := argv[1:]
	for len(words) > 0 {
		word := words[0]
		words = words[1:]
		switch {
		case word == "--":
			args, words = append(args, words...), nil
		case strings.HasPrefix(word, "-") && word != "-":
			taken, err := takeFlag(strings.Join(path, " "), append(known, flagsOf(commands)...), word, words)
			if err != nil {
				return nil, err
			}
			flags, words = append(append(flags, word), words[:taken]...), words[taken:]
		case len(commands) > 0 && len(args) == 0:
			i := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.HasName(word) })
			if i < 0 {
				return nil, unknownCommand(path, commands, word)
			}
			path = append(path, word)
			known, commands = append(known, commands[i].Flags...), commands[i].Subcommands
		default:
			args = append(args, word)
		}
	}
	for i := 0; i < len(flags); i++ { // those before the command may be another one's
		taken, err := takeFlag(strings.Join(path, " "), known, flags[i], flags[i+1:])
		if err != nil {
			return nil, err
		}
		i += taken
	}
	out := append(path, flags...)
	out[0] = argv[0]
	if len(args) > 0 {
		out = append(append(out, "--"), args...)
	}
	return out, nil
}

// flagsOf returns the flags of all commands below.
func flagsOf(commands []*cli.Command) (all []cli.Flag) {
	for _, c := range commands {
		all = append(append(all, c.Flags...), flagsOf(c.Subcommands)...)
	}
	return all
}

func appFlags() []cli.Flag {
	return []cli.Flag{cli.HelpFlag, cli.VersionFlag}
}

// takeFlag returns how many of the next words belong to the flag word.
func takeFlag(command string, known []cli.Flag, word string, next []string) (int, error) {
	name, _, hasValue := strings.Cut(strings.TrimLeft(word, "-"), "=")
	var names []string
	for _, f := range known {
		names = append(names, f.Names()...)
		if !slices.Contains(f.Names(), name) {
			continue
		}
		if _, isBool := f.(*cli.BoolFlag); isBool || hasValue {
			return 0, nil
		}
		if len(next) == 0 {
			return 0, usageError{fmt.Sprintf("%s: flag %s needs a value", command, word), helpHint(command)}
		}
		return 1, nil
	}
	hint := helpHint(command)
	if near := config.Nearest(name, names); near != "" {
		hint = fmt.Sprintf("did you mean --%s?", near)
	}
	return 0, usageError{fmt.Sprintf("%s: unknown flag %s", command, word), hint + " (an argument that begins with a dash goes after --)"}
}

func unknownCommand(path []string, commands []*cli.Command, word string) error {
	var names []string
	for _, c := range commands {
		names = append(names, c.Name)
	}
	hint := "one of: " + strings.Join(names, ", ")
	near := config.Nearest(word, names)
	for _, same := range synonyms {
		if i := slices.IndexFunc(names, func(n string) bool { return slices.Contains(same, n) }); i >= 0 && slices.Contains(same, word) {
			near = names[i]
		}
	}
	if near != "" {
		hint = fmt.Sprintf("did you mean `%s %s`?", strings.Join(path, " "), near)
	}
	return usageError{fmt.Sprintf("%s: unknown command %q", strings.Join(path, " "), word), hint}
}

// synonyms are words that other programs have for the same.
var synonyms = [][]string{{"delete", "remove", "rm", "del"}, {"list", "ls"}, {"create", "new", "add"}, {"show", "info", "get"}}
