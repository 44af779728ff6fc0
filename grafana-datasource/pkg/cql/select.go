package cql

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Table is what the guard must know of a table: the columns of its partition key, in their order.
type Table struct {
	Name         string
	PartitionKey []string
}

// Rules are what an administrator allows.
type Rules struct {
	Keyspace       string
	AllowFiltering bool     // statements may say ALLOW FILTERING, and then need no whole partition key
	MaxPartitions  int      // that one statement may ask for
	Fleets         []string // the only fleets that may be read; none: every one
	FleetColumn    string   // the partition-key column that names the fleet
}

// maxAggregated is how many partitions one statement may ask for where it can't be split, since it counts or groups
// over all of them: one coordinator has to gather them.
const maxAggregated = 100

// maxDepth bounds nesting of parentheses and brackets.
const maxDepth = 32

// beginnings are the words that begin a statement or make one of several. All are reserved, so nothing can be called so
// without quotes, and the server would refuse them as well.
var beginnings = []string{
	"select", "insert", "update", "delete", "truncate", "drop", "create", "alter", "rename", "grant", "revoke", "begin", "batch", "apply", "use",
}

// Plan is what to run in place of a statement.
type Plan struct {
	Table      string
	Statements []string // one a partition, in the order of the values that the statement names
	Limit      int      // of the statement itself, over all partitions; 0: none
}

// firstWave is how many statements are run before anything is known of their rows.
const firstWave = 8

// NextBatch is how many of the statements to run next, where done of them gave so many rows: as many as are likely to fill
// the limit, and none when it is passed. To run them all would be to read the limit as often as there are partitions.
func (p Plan) NextBatch(done, rows, limit, atOnce int) int {
	left := len(p.Statements) - done
	switch {
	case rows > limit, p.Limit > 0 && rows >= p.Limit:
		return 0
	case done == 0:
		return min(left, firstWave, atOnce)
	case rows == 0:
		return min(left, 2*done, atOnce)
	}
	return min(left, max((limit-rows)*done/rows+1, firstWave), atOnce)
}

// Validate reads a statement without macros and plans it, or tells why it is refused.
func Validate(statement string, tables []Table, rules Rules) (Plan, error) {
	if len(statement) > MaxText {
		return Plan{}, fmt.Errorf("statement: %d bytes, at most %d are taken", len(statement), MaxText)
	}
	s, err := parse(statement)
	if err != nil {
		return Plan{}, err
	}
	return s.plan(tables, rules)
}

// selection is a SELECT that was read.
type selection struct {
	statement string // without a closing semicolon
	tokens    []token
	next      int

	keyspace, table string
	aggregates      bool
	functions       []string // keyspaces that functions are named of
	where           []relation
	limit           int
	filtering       bool
}

// relation is one condition: what a column must equal or be among; other conditions have no values.
type relation struct {
	column   string
	values   [][]token // one of "=", several of IN
	from, to int       // its place in the statement
}

func parse(statement string) (*selection, error) {
	list, err := tokens(statement)
	if err != nil {
		return nil, err
	}
	// A semicolon may close the statement, nothing may follow it.
	list = list[:len(list)-1]
	if n := len(list); n > 0 && list[n-1].is(";") {
		statement = statement[:list[n-1].from]
		list = list[:n-1]
	}
	statement = strings.TrimRight(statement, " \t\r\n")
	s := &selection{statement: statement, tokens: append(list, token{end, "", len(statement), len(statement)})}
	for _, t := range list {
		if t.is(";") {
			return nil, fmt.Errorf("semicolon at %s: one statement at a time", place(statement, t.from))
		}
	}
	for _, t := range list[min(1, len(list)):] {
		if t.kind == word && slices.Contains(beginnings, t.value) {
			return nil, fmt.Errorf("%s at %s: a SELECT has no such word; put the name of a column or table in double quotes",
				strings.ToUpper(t.value), place(statement, t.from))
		}
	}
	if err := s.checkDepth(); err != nil {
		return nil, err
	}
	return s, s.parse()
}

func (s *selection) checkDepth() error {
	var open []string
	for _, t := range s.tokens {
		if t.kind != symbol {
			continue
		}
		switch t.value {
		case "(", "[", "{":
			if open = append(open, t.value); len(open) > maxDepth {
				return fmt.Errorf("%s at %s: nested more than %d deep", t.value, place(s.statement, t.from), maxDepth)
			}
		case ")", "]", "}":
			pair := map[string]string{")": "(", "]": "[", "}": "{"}[t.value]
			if len(open) == 0 || open[len(open)-1] != pair {
				return fmt.Errorf("%s at %s: nothing that it closes", t.value, place(s.statement, t.from))
			}
			open = open[:len(open)-1]
		}
	}
	if len(open) > 0 {
		return fmt.Errorf("statement: a %s is not closed", open[len(open)-1])
	}
	return nil
}

func (s *selection) parse() error {
	if first := s.tokens[0]; !first.is("select") {
		if first.kind == end {
			return fmt.Errorf("statement: it is empty")
		}
		return fmt.Errorf("statement begins with %q: only SELECT is taken", shown(s.statement[first.from:first.to]))
	}
	s.next = 1
	if err := s.selectors(); err != nil {
		return err
	}
	if err := s.from(); err != nil {
		return err
	}
	if s.accept("where") {
		if err := s.conditions(); err != nil {
			return err
		}
	}
	return s.tail()
}

// selectors reads up to FROM.
func (s *selection) selectors() error {
	start := s.next
	depth := 0
	for ; ; s.next++ {
		t := s.peek()
		switch {
		case t.kind == end:
			return fmt.Errorf("statement: FROM and a table are missing")
		case t.is("(") || t.is("[") || t.is("{"):
			depth++
		case t.is(")") || t.is("]") || t.is("}"):
			depth--
		case t.is("distinct") && s.next == start:
			s.aggregates = true
		case depth == 0 && t.is("from") && s.next > start:
			s.next++
			return nil
		}
		if t.name() && s.tokens[s.next+1].is("(") {
			switch t.value {
			case "count", "sum", "avg", "min", "max":
				s.aggregates = true
			}
			// The functions of the schema may be aggregates too.
			if s.tokens[s.next-1].is(".") {
				s.aggregates = true
				s.functions = append(s.functions, s.tokens[s.next-2].value)
			}
		}
	}
}

func (s *selection) from() error {
	t := s.peek()
	if !t.name() {
		return fmt.Errorf("FROM at %s: name a table behind it", place(s.statement, t.from))
	}
	s.table = t.value
	s.next++
	if s.accept(".") {
		t = s.peek()
		if !t.name() {
			return fmt.Errorf("table at %s: a name is missing behind the dot", place(s.statement, t.from))
		}
		s.keyspace, s.table = s.table, t.value
		s.next++
	}
	return nil
}

// conditions reads the relations of WHERE, up to what may follow them.
func (s *selection) conditions() error {
	for {
		start := s.next
		depth := 0
	relation:
		for ; ; s.next++ {
			t := s.peek()
			switch {
			case t.kind == end:
				break relation
			case t.is("(") || t.is("[") || t.is("{"):
				depth++
			case t.is(")") || t.is("]") || t.is("}"):
				depth--
			case depth == 0 && t.endsCondition() && (s.next > start || !t.is("group") && !t.is("per")): // a column may be called so
				break relation
			}
		}
		if s.next == start {
			return fmt.Errorf("condition at %s: it is empty", place(s.statement, s.peek().from))
		}
		s.where = append(s.where, s.relation(s.tokens[start:s.next]))
		if !s.accept("and") {
			return nil
		}
	}
}

// endsCondition tells the words behind which a condition can't go on. None of them can be part of a value.
func (t token) endsCondition() bool { return t.is("and") || t.beginsClause() }

// beginsClause tells the words that begin what may follow the conditions.
func (t token) beginsClause() bool {
	return t.kind == word && slices.Contains([]string{"group", "order", "per", "limit", "allow"}, t.value)
}

// relation reads a condition. One that the server would refuse gives no values, and so is no set of partitions.
func (s *selection) relation(part []token) relation {
	none := relation{from: part[0].from, to: part[len(part)-1].to}
	r := none
	if len(part) < 3 || !part[0].name() || slices.ContainsFunc(part[2:], token.endsCondition) {
		return none
	}
	switch {
	case part[1].is("="):
		r.column, r.values = part[0].value, [][]token{part[2:]}
	case part[1].is("in") && part[2].is("(") && part[len(part)-1].is(")"):
		r.column = part[0].value
		depth, start := 0, 3
		for i := 3; i < len(part); i++ {
			switch t := part[i]; {
			case t.is("(") || t.is("[") || t.is("{"):
				depth++
			case depth == 0 && (t.is(",") || i == len(part)-1):
				if i == start { // an empty value
					return none
				}
				r.values = append(r.values, part[start:i])
				start = i + 1
			case depth == 0 && t.is(")"): // more follows the list
				return none
			case t.is(")") || t.is("]") || t.is("}"):
				depth--
			}
		}
	}
	return r
}

// tail reads what may follow the conditions.
func (s *selection) tail() error {
	for s.peek().kind != end {
		t := s.peek()
		switch {
		case s.accept("group"):
			s.aggregates = true
			s.skip()
		case s.accept("order"):
			s.skip()
		case s.accept("per"):
			if !s.accept("partition") || !s.accept("limit") {
				return fmt.Errorf("PER at %s: PER PARTITION LIMIT is meant", place(s.statement, t.from))
			}
			if _, err := s.number("PER PARTITION LIMIT"); err != nil {
				return err
			}
		case s.accept("limit"):
			var err error
			if s.limit, err = s.number("LIMIT"); err != nil {
				return err
			}
		case s.accept("allow"):
			if !s.accept("filtering") {
				return fmt.Errorf("ALLOW at %s: ALLOW FILTERING is meant", place(s.statement, t.from))
			}
			s.filtering = true
		default:
			return fmt.Errorf("%q at %s: nothing of a SELECT that can stand here", shown(s.statement[t.from:t.to]), place(s.statement, t.from))
		}
	}
	return nil
}

// skip goes on to the next clause.
func (s *selection) skip() {
	for t := s.peek(); t.kind != end && !t.beginsClause(); t = s.peek() {
		s.next++
	}
}

func (s *selection) number(clause string) (int, error) {
	t := s.peek()
	n, err := strconv.Atoi(t.value)
	if t.kind != constant || err != nil || n < 1 {
		return 0, fmt.Errorf("%s %q: give a whole number above 0", clause, shown(s.statement[t.from:t.to]))
	}
	s.next++
	return n, nil
}

func (s *selection) peek() token { return s.tokens[s.next] }

func (s *selection) accept(value string) bool {
	if s.peek().is(value) {
		s.next++
		return true
	}
	return false
}

func (s *selection) plan(tables []Table, rules Rules) (Plan, error) {
	if s.keyspace != "" && s.keyspace != rules.Keyspace {
		return Plan{}, fmt.Errorf("keyspace %q: only tables of %s can be read", shown(s.keyspace), rules.Keyspace)
	}
	for _, keyspace := range s.functions {
		if keyspace != rules.Keyspace && keyspace != "system" {
			return Plan{}, fmt.Errorf("function of keyspace %q: only those of %s can be used", shown(keyspace), rules.Keyspace)
		}
	}
	i := slices.IndexFunc(tables, func(t Table) bool { return t.Name == s.table })
	if i < 0 {
		names := make([]string, len(tables))
		for i, t := range tables {
			names[i] = t.Name
		}
		return Plan{}, fmt.Errorf("table %q: keyspace %s has none of that name, but %s", shown(s.table), rules.Keyspace, strings.Join(names, ", "))
	}
	if s.filtering && !rules.AllowFiltering {
		return Plan{}, fmt.Errorf("ALLOW FILTERING: refused, since it can read a whole table; name the partition key (%s), or ask the administrator to allow it",
			strings.Join(tables[i].PartitionKey, ", "))
	}
	keys, err := s.keyRelations(tables[i], rules)
	if err != nil {
		return Plan{}, err
	}
	plan := Plan{Table: s.table, Limit: s.limit}
	if plan.Statements, err = s.split(keys, rules); err != nil {
		return Plan{}, err
	}
	return plan, nil
}

// keyRelations finds the condition on each column of the partition key.
func (s *selection) keyRelations(table Table, rules Rules) ([]relation, error) {
	var keys []relation
	var missing []string
	for _, column := range table.PartitionKey {
		i := slices.IndexFunc(s.where, func(r relation) bool { return r.column == column })
		if i < 0 {
			missing = append(missing, column)
			continue
		}
		// The server would refuse it; here it would leave open which of the two is checked.
		if slices.ContainsFunc(s.where[i+1:], func(r relation) bool { return r.column == column }) {
			return nil, fmt.Errorf("column %s: it has a condition twice", column)
		}
		keys = append(keys, s.where[i])
	}
	if len(rules.Fleets) > 0 {
		if err := s.checkFleets(table, keys, rules); err != nil {
			return nil, err
		}
	}
	if len(missing) > 0 && (!s.filtering || !rules.AllowFiltering) {
		return nil, fmt.Errorf("table %s: the partition key is (%s), and %s %s no condition with = or IN; without it the whole table would be read",
			table.Name, strings.Join(table.PartitionKey, ", "), strings.Join(missing, " and "), map[bool]string{true: "has", false: "have"}[len(missing) == 1])
	}
	return keys, nil
}

func (s *selection) checkFleets(table Table, keys []relation, rules Rules) error {
	if !slices.Contains(table.PartitionKey, rules.FleetColumn) {
		return fmt.Errorf("table %s: not keyed by fleet, so what this data source may see of it can't be told; use a typed query, which checks the fleet", table.Name)
	}
	i := slices.IndexFunc(keys, func(r relation) bool { return r.column == rules.FleetColumn })
	if i < 0 {
		return fmt.Errorf("table %s: name the fleet, one of %s", table.Name, strings.Join(rules.Fleets, ", "))
	}
	for _, value := range keys[i].values {
		if len(value) != 1 || value[0].kind != text || !slices.Contains(rules.Fleets, value[0].value) {
			return fmt.Errorf("fleet %s: this data source has no right on it, but on %s",
				shown(s.statement[value[0].from:value[len(value)-1].to]), strings.Join(rules.Fleets, ", "))
		}
	}
	return nil
}

// split makes a statement for each partition. Where the statement counts or groups, it stays whole.
func (s *selection) split(keys []relation, rules Rules) ([]string, error) {
	partitions := 1
	for _, key := range keys {
		if partitions *= len(key.values); partitions > rules.MaxPartitions {
			return nil, fmt.Errorf("statement asks for more than %d partitions; take a shorter range or fewer values, or raise the limit of the data source", rules.MaxPartitions)
		}
	}
	if s.aggregates {
		if partitions > maxAggregated {
			return nil, fmt.Errorf("statement counts or groups over %d partitions, at most %d can be gathered at once; take a shorter range", partitions, maxAggregated)
		}
		return []string{s.statement}, nil
	}
	keys = slices.DeleteFunc(slices.Clone(keys), func(r relation) bool { return len(r.values) == 1 })
	slices.SortFunc(keys, func(a, b relation) int { return a.from - b.from })
	statements := []string{""}
	done := 0
	for _, key := range keys {
		column := s.statement[key.from:s.columnEnd(key)]
		gap := "" // what stands close behind the parenthesis may not become a part of the value
		if key.to < len(s.statement) && !strings.ContainsRune(" \t\r\n", rune(s.statement[key.to])) {
			gap = " "
		}
		var longer []string
		for _, statement := range statements {
			for _, value := range key.values {
				longer = append(longer, statement+s.statement[done:key.from]+column+" = "+s.statement[value[0].from:value[len(value)-1].to]+gap)
			}
		}
		statements, done = longer, key.to
	}
	for i := range statements {
		statements[i] += s.statement[done:]
	}
	return statements, nil
}

// columnEnd is where the column's name in a condition ends.
func (s *selection) columnEnd(r relation) int {
	for _, t := range s.tokens {
		if t.from == r.from {
			return t.to
		}
	}
	return r.from
}
