package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"petal/appliance/api"
	"petal/appliance/config"
)

// result prints v as JSON if --json was given, otherwise what human writes.
func (c *call) result(v any, human func(w io.Writer)) error {
	if !c.Bool("json") {
		human(c.out)
		return nil
	}
	e := json.NewEncoder(c.out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// done says, with --json, what has been done to which thing; people see that
// from the silence.
func (c *call) done(what, thing string) error {
	return c.result(map[string]string{what: thing}, func(io.Writer) {})
}

// columns prints a table; a header that begins with ">" is aligned right.
func columns(w io.Writer, headers []string, rows [][]string) {
	t := table.NewWriter()
	style := table.StyleDefault
	style.Options = table.OptionsNoBordersAndSeparators
	style.Box.PaddingLeft, style.Box.PaddingRight = "", "  "
	style.Format.Header = text.FormatUpper
	t.SetStyle(style)
	head := make(table.Row, len(headers))
	var configs []table.ColumnConfig
	for i, h := range headers {
		head[i] = strings.TrimPrefix(h, ">")
		if strings.HasPrefix(h, ">") {
			configs = append(configs, table.ColumnConfig{Number: i + 1, Align: text.AlignRight, AlignHeader: text.AlignRight})
		}
	}
	t.SetColumnConfigs(configs)
	t.AppendHeader(head)
	for _, r := range rows {
		row := make(table.Row, len(r))
		for i := range r {
			row[i] = r[i]
		}
		t.AppendRow(row)
	}
	for line := range strings.Lines(t.Render()) {
		fmt.Fprintln(w, strings.TrimRight(line, " \n"))
	}
}

// facts prints names and values, one line each.
func facts(w io.Writer, pairs ...string) {
	width := 0
	for i := 0; i < len(pairs); i += 2 {
		width = max(width, len(pairs[i]))
	}
	for i := 0; i < len(pairs); i += 2 {
		fmt.Fprintf(w, "%-*s  %s\n", width, pairs[i], pairs[i+1])
	}
}

func size(n uint64) string { return config.FormatSize(n) }

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func ago(t time.Time) string { return time.Since(t).Round(time.Second).String() }

func exports(list []api.Export) string {
	parts := make([]string, len(list))
	for i, e := range list {
		parts[i] = fmt.Sprintf("%s/%d", e.Target, e.LUN)
	}
	return orDash(strings.Join(parts, " "))
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
