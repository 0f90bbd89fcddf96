package cli

import (
	"fmt"
	"io"

	"github.com/urfave/cli/v2"
)

func (s streams) completion() *cli.Command {
	return s.command(spec{
		name: "completion", usage: "print the completion script of a shell", args: "SHELL",
		description: "SHELL is bash, zsh or fish. Try: source <(petal completion bash)",
		run:         runCompletion,
	})
}

// The shells ask the program itself, through its completion flag, for what may
// come next.
const (
	bashCompletion = `_petal() {
    local words=("${COMP_WORDS[@]:0:COMP_CWORD}")
    COMPREPLY=($(compgen -W "$("${words[@]}" --generate-bash-completion 2>/dev/null)" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _petal petal
`
	zshCompletion = `#compdef petal
_petal() {
    local -a found
    found=("${(@f)$("${(@)words[1,CURRENT-1]}" --generate-bash-completion 2>/dev/null)}")
    compadd -a found || _files
}
compdef _petal petal
`
)

func runCompletion(c *call) error {
	var script string
	var err error
	switch shell := c.Args().First(); shell {
	case "bash":
		script = bashCompletion
	case "zsh":
		script = zshCompletion
	case "fish":
		script, err = c.App.ToFishCompletion()
	default:
		return usageError{fmt.Sprintf("petal completion: no shell %q", shell), "bash, zsh or fish"}
	}
	if err != nil {
		return err
	}
	_, err = io.WriteString(c.out, script)
	return err
}
