package table

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const endMark = "<!-- end of results -->"

// WriteInto puts sections into a page, each between its own two marks, and draws their plots into a folder beside the
// page. It returns the names of the sections that the page has no marks for.
func WriteInto(page string, sections []Section, images string) (without []string, err error) {
	content, err := os.ReadFile(page)
	if err != nil {
		return nil, err
	}
	text, folder := string(content), filepath.Join(filepath.Dir(page), images)
	for i := range sections {
		s := &sections[i]
		begin := fmt.Sprintf("<!-- results: %s -->\n", s.Name)
		before, rest, ok := strings.Cut(text, begin)
		_, after, ended := strings.Cut(rest, endMark)
		if !ok || !ended {
			without = append(without, s.Name)
			continue
		}
		text = before + begin + "\n" + s.Markdown(images) + "\n" + endMark + after
		for _, t := range s.Tables {
			if t.Plot == nil {
				continue
			}
			svg, err := t.svg()
			if err == nil {
				err = os.MkdirAll(folder, 0o755)
			}
			if err == nil {
				err = os.WriteFile(filepath.Join(folder, t.Plot.Name+".svg"), svg, 0o644)
			}
			if err != nil {
				return without, err
			}
		}
	}
	return without, os.WriteFile(page, []byte(text), 0o644) //nolint:gosec // the caller names the page
}
