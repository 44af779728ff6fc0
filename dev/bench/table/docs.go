package table

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const endMark = "<!-- end of results -->"

// WriteInto puts sections into a page, each between its own two marks, and draws their plots into a folder beside the
// page. It leaves out sections that the page has no marks for.
func WriteInto(page string, sections []Section, images string) error {
	content, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	text, folder := string(content), filepath.Join(filepath.Dir(page), images)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for i := range sections {
		s := &sections[i]
		begin := fmt.Sprintf("<!-- results: %s -->\n", s.Name)
		before, rest, ok := strings.Cut(text, begin)
		_, after, ended := strings.Cut(rest, endMark)
		if !ok || !ended {
			continue
		}
		text = before + begin + "\n" + s.Markdown(images) + "\n" + endMark + after
		for _, t := range s.Tables {
			if t.Plot == nil {
				continue
			}
			svg, err := t.svg()
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(folder, t.Plot.Name+".svg"), svg, 0o644); err != nil {
				return err
			}
		}
	}
	return os.WriteFile(page, []byte(text), 0o644)
}
