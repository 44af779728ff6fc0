package cql

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Table is a table of the schema, with the columns of its partition key in order.
type Table struct {
	Name         string
	PartitionKey []string
}

// Rules are the rules that an administrator sets.
type Rules struct {
	Keyspace       string
	AllowFiltering bool     // allow statements with ALLOW FILTERING, which then need no whole partition key
	MaxPartitions  int      // maximum of one statement
	Fleets         []string // fleets that may be read; empty means all
}

// maxAggregated bounds the partitions of a statement that counts or groups. It cannot be split, so one coordinator has to
// gather all its partitions.
const maxAggregated = 100

// fleetColumn is the partition-key column that names the fleet.
const fleetColumn = "fleet_id"

// maxDepth bounds the nesting of parentheses and brackets.
const maxDepth = 32

// statementWords begin a statement or join several. All are reserved words: no unquoted name can equal one, and the server
// would reject them as well.
var statementWords = []string{
	"select", "insert", "update", "delete", "truncate", "drop", "create", "alter", "rename", "grant", "revoke", "begin", "batch", "apply", "use",
}

// Plan is the list of statements to run in place of a validated statement.
type Plan struct {
	Table      string
	Statements []string // one per partition, in the order of the values in the statement
	Limit      int      // of the whole statement, over all partitions; 0 means none
}

// Validate parses a statement without macros and plans it. The error says why it rejects a statement.
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

// selection is a SELECT in the course of parsing.
type selection struct {
	statement string // without a closing semicolon
	tokens    []token
	next      int

	keyspace, table string
	aggregates      bool
	functions       []string // keyspaces of qualified functions
	where           []relation
	limit           int
	filtering       bool
}

// relation is one condition: a column and the values of its "=" or IN. Other conditions have no values.
type relation struct {
	column    string
	values    [][]token // one for "=", several for IN
	from, to  int       // byte offsets in the statement
	columnEnd int       // byte offset of the end of the column's name
}

func parse(statement string) (*selection, error) {
	list, err := tokens(statement)
	if err != nil {
		return nil, err
	}
	// A semicolon may end the statement, and nothing may follow it.
	if n := len(list); n > 0 && list[n-1].is(";") {
		statement = statement[:list[n-1].from]
		list = list[:n-1]
	}
	statement = strings.TrimRight(statement, " \t\r\n")
	s := &selection{statement: statement, tokens: append(list, token{kind: end, from: len(statement), to: len(statement)})}
	for _, t := range list {
		if t.is(";") {
			return nil, fmt.Errorf("semicolon at %s: only one statement is allowed", place(statement, t.from))
		}
	}
	for i, t := range list {
		if i > 0 && t.kind == word && slices.Contains(statementWords, t.value) {
			return nil, fmt.Errorf("%s at %s: not a part of a SELECT; put a column or table of that name in double quotes",
				strings.ToUpper(t.value), place(statement, t.from))
		}
	}
	if err := s.setDepths(); err != nil {
		return nil, err
	}
	return s, s.parse()
}

// setDepths sets the depths of the tokens. It rejects parentheses and brackets that are not in pairs.
func (s *selection) setDepths() error {
	var open []string
	for i := range s.tokens {
		t := &s.tokens[i]
		t.depth = len(open)
		if t.kind != symbol {
			continue
		}
		switch t.value {
		case "(", "[", "{":
			if open = append(open, t.value); len(open) > maxDepth {
				return fmt.Errorf("%s at %s: nested more than %d levels deep", t.value, place(s.statement, t.from), maxDepth)
			}
		case ")", "]", "}":
			pair := map[string]string{")": "(", "]": "[", "}": "{"}[t.value]
			if len(open) == 0 || open[len(open)-1] != pair {
				return fmt.Errorf("%s at %s: it closes nothing", t.value, place(s.statement, t.from))
			}
			open = open[:len(open)-1]
			t.depth = len(open)
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
		return fmt.Errorf("statement begins with %q: only SELECT is allowed", shown(s.statement[first.from:first.to]))
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

// selectors parses up to FROM.
func (s *selection) selectors() error {
	start := s.next
	for ; ; s.next++ {
		t := s.peek()
		switch {
		case t.kind == end:
			return fmt.Errorf("statement: FROM and a table are missing")
		case t.is("distinct") && s.next == start:
			s.aggregates = true
		case t.depth == 0 && t.is("from") && s.next > start:
			s.next++
			return nil
		}
		if t.name() && s.tokens[s.next+1].is("(") {
			switch t.value {
			case "count", "sum", "avg", "min", "max":
				s.aggregates = true
			}
			// A function of the schema may be an aggregate.
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
		return fmt.Errorf("FROM at %s: name a table after it", place(s.statement, t.from))
	}
	s.table = t.value
	s.next++
	if s.accept(".") {
		t = s.peek()
		if !t.name() {
			return fmt.Errorf("table at %s: a name is missing after the dot", place(s.statement, t.from))
		}
		s.keyspace, s.table = s.table, t.value
		s.next++
	}
	return nil
}

// conditions parses the relations of WHERE, up to the next clause.
func (s *selection) conditions() error {
	for {
		start := s.next
		for t := s.peek(); t.kind != end; t = s.peek() {
			if t.depth == 0 && t.endsCondition() && (s.next > start || !t.is("group") && !t.is("per")) { // a column may have this name
				break
			}
			s.next++
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

// endsCondition reports whether a token ends a condition. No value can contain such a token.
func (t token) endsCondition() bool { return t.is("and") || t.beginsClause() }

// beginsClause reports whether a token begins a clause that may follow the conditions.
func (t token) beginsClause() bool {
	return t.kind == word && slices.Contains([]string{"group", "order", "per", "limit", "allow"}, t.value)
}

// relation parses a condition. A condition that the server would reject has no values, so it selects no partitions.
func (s *selection) relation(part []token) relation {
	none := relation{from: part[0].from, to: part[len(part)-1].to, columnEnd: part[0].to}
	r := none
	if len(part) < 3 || !part[0].name() || slices.ContainsFunc(part[2:], token.endsCondition) {
		return none
	}
	switch {
	case part[1].is("="):
		r.column, r.values = part[0].value, [][]token{part[2:]}
	case part[1].is("in") && part[2].is("(") && part[len(part)-1].is(")"):
		r.column = part[0].value
		start := 3
		for i := 3; i < len(part); i++ {
			switch t := part[i]; {
			case i == len(part)-1 || t.depth == 1 && t.is(","):
				if i == start { // an empty value
					return none
				}
				r.values = append(r.values, part[start:i])
				start = i + 1
			case t.depth == 0: // more follows the list
				return none
			}
		}
	}
	return r
}

// tail parses the clauses that may follow the conditions.
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
				return fmt.Errorf("PER at %s: write PER PARTITION LIMIT", place(s.statement, t.from))
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
				return fmt.Errorf("ALLOW at %s: write ALLOW FILTERING", place(s.statement, t.from))
			}
			s.filtering = true
		default:
			return fmt.Errorf("%q at %s: not allowed here in a SELECT", shown(s.statement[t.from:t.to]), place(s.statement, t.from))
		}
	}
	return nil
}

// skip moves to the next clause.
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
			return Plan{}, fmt.Errorf("function of keyspace %q: only functions of %s are allowed", shown(keyspace), rules.Keyspace)
		}
	}
	i := slices.IndexFunc(tables, func(t Table) bool { return t.Name == s.table })
	if i < 0 {
		names := make([]string, len(tables))
		for i, t := range tables {
			names[i] = t.Name
		}
		return Plan{}, fmt.Errorf("table %q: not in keyspace %s, which has %s", shown(s.table), rules.Keyspace, strings.Join(names, ", "))
	}
	if s.filtering && !rules.AllowFiltering {
		return Plan{}, fmt.Errorf("ALLOW FILTERING: not allowed, because it can read a whole table; name the partition key (%s), or ask the administrator to allow it",
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
		// The server would reject a repeated condition, and it would be unclear which one to check here.
		if slices.ContainsFunc(s.where[i+1:], func(r relation) bool { return r.column == column }) {
			return nil, fmt.Errorf("column %s: it has two conditions; keep one", column)
		}
		keys = append(keys, s.where[i])
	}
	if len(rules.Fleets) > 0 {
		if err := s.checkFleets(table, keys, rules); err != nil {
			return nil, err
		}
	}
	if len(missing) > 0 && (!s.filtering || !rules.AllowFiltering) {
		return nil, fmt.Errorf("table %s: the partition key is (%s), and %s %s no condition with = or IN; without one the whole table would be read",
			table.Name, strings.Join(table.PartitionKey, ", "), strings.Join(missing, " and "), map[bool]string{true: "has", false: "have"}[len(missing) == 1])
	}
	return keys, nil
}

func (s *selection) checkFleets(table Table, keys []relation, rules Rules) error {
	if !slices.Contains(table.PartitionKey, fleetColumn) {
		return fmt.Errorf("table %s: it has no fleet in its key, so access cannot be checked; use a query type other than raw CQL", table.Name)
	}
	i := slices.IndexFunc(keys, func(r relation) bool { return r.column == fleetColumn })
	if i < 0 {
		return fmt.Errorf("table %s: name the fleet; use one of %s", table.Name, strings.Join(rules.Fleets, ", "))
	}
	for _, value := range keys[i].values {
		if len(value) != 1 || value[0].kind != text || !slices.Contains(rules.Fleets, value[0].value) {
			return fmt.Errorf("fleet %s: not allowed for this data source (allowed: %s)",
				shown(s.statement[value[0].from:value[len(value)-1].to]), strings.Join(rules.Fleets, ", "))
		}
	}
	return nil
}

// maxPlan bounds the bytes of all statements of a plan.
const maxPlan = 16 << 20

// bytesEach returns the bytes of the longest statement of a plan that splits the conditions keys.
func (s *selection) bytesEach(keys []relation) int {
	n := len(s.statement) + len(keys)
	for _, key := range keys {
		longest := 0
		for _, value := range key.values {
			longest = max(longest, value[len(value)-1].to-value[0].from)
		}
		n += key.columnEnd + len(" = ") + longest - key.to
	}
	return n
}

// split makes one statement per partition. A statement that counts or groups stays whole.
func (s *selection) split(keys []relation, rules Rules) ([]string, error) {
	partitions := 1
	for _, key := range keys {
		if partitions *= len(key.values); partitions > rules.MaxPartitions {
			return nil, fmt.Errorf("statement reads more than %d partitions; choose a shorter range or fewer values, or raise the limit of the data source", rules.MaxPartitions)
		}
	}
	if s.aggregates {
		if partitions > maxAggregated {
			return nil, fmt.Errorf("statement counts or groups over %d partitions; at most %d are allowed; choose a shorter range", partitions, maxAggregated)
		}
		return []string{s.statement}, nil
	}
	keys = slices.DeleteFunc(slices.Clone(keys), func(r relation) bool { return len(r.values) == 1 })
	if each := s.bytesEach(keys); partitions > maxPlan/each {
		return nil, fmt.Errorf("statement of %d bytes for each of %d partitions: at most %d bytes are accepted together; shorten it, or name fewer values",
			each, partitions, maxPlan)
	}
	slices.SortFunc(keys, func(a, b relation) int { return a.from - b.from })
	statements := []string{""}
	done := 0
	for _, key := range keys {
		column := s.statement[key.from:key.columnEnd]
		gap := "" // text directly behind the parenthesis must not become a part of the value
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
