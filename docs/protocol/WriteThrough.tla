------------------------------- MODULE WriteThrough -------------------------------
(* Write-through from Redis to MongoDB: versions (term, batch) are begun in MongoDB; a `life` names each unbroken
   stretch of Redis's memory. Each action is one atomic step of Redis, of MongoDB or of a committer; in front of it
   stands the place in the code.  *)
EXTENDS Naturals, Sequences, FiniteSets, TLC

CONSTANTS Keys, Committers, MaxWrites, MaxTerm, MaxLosses, MaxSnaps, MaxSweeps, MaxEvictions, MaxFills, MaxRefusals,
          MaxConditional, MaxRetries,
          \* switches, to see what each mechanism is for
          UseLife, LifeInAck, LifeInGiveBack, AckedInAck, LeaseInAck, VersionFilter, TombFirst, LookAfterInsert,
          NewestTest, PresentLifeWins, NewerEntryWins, GiveBackOn, TermOn, ReplidInLife, HigherNumber, CertainOn,
          TicketInFill, VerifyOn, VeryStateInRollBack, LastWriteInRollBack, VersionOfRefused, RefusedIsRecorded,
          CheckedForConditional, VersionOfGivenBack, LateOn, NewsInSweep,
          \* what the code doesn't do; see README.md
          LifeInRollBack, ProofHolds

None == "none"
NoV == <<0, 0>>
NoId == <<0, 0>>                                        \* a token: life and id
NoB == [v |-> NoV, upto |-> NoId, newest |-> NoId, certain |-> NoId, ids |-> {}]
Less(a, b) == a[1] < b[1] \/ (a[1] = b[1] /\ a[2] < b[2])
\* A key in Redis: "doc" (present), "del" (marked as deleted), "cold" (neither: MongoDB is asked). w: the write it came by.
Cold == [w |-> 0, s |-> "cold"]
NoDoc == [w |-> 0, p |-> FALSE, v |-> NoV]
NoAcked == [v |-> NoV, life |-> 0, id |-> 0]
NoFound == [k |-> None, w |-> 0, s |-> "cold", v |-> NoV]

EmptyR == [doc |-> [k \in Keys |-> Cold], ticket |-> [k \in Keys |-> 0], stream |-> <<>>, last |-> 0, life |-> 0,
           acked |-> NoAcked, checked |-> 0, lease |-> None, refused |-> {}]

VARIABLES R, proc, snap, lives, losses, snaps,   \* Redis; proc: the life that is kept with the present memory's id
          M,                                     \* MongoDB
          ops,                                   \* what is under way to it
          C,                                     \* committers
          F, S,                                  \* the fill and the sweep under way
          used,                                  \* how often what is bounded was done
          G                                      \* ghosts: of each write its key and token; which are acknowledged, such
                                                 \* as MongoDB refuses, told to be refused, gone by what was forgotten;
                                                 \* by what kind of entries MongoDB went back

vars == <<R, proc, snap, lives, losses, snaps, M, ops, C, F, S, used, G>>

NoFill == [pc |-> "idle", k |-> None, ticket |-> 0, found |-> NoFound]
NoSweep == [pc |-> "idle", k |-> None, w |-> 0, last |-> 0, term |-> 0, news |-> FALSE, found |-> NoFound]

Idle == [pc |-> "idle", term |-> 0, batch |-> 0, life |-> 0, left |-> NoAcked, above |-> NoV, low |-> NoV, b |-> NoB,
         todo |-> {}, found |-> NoFound, states |-> <<>>, es |-> {}, refused |-> {}, unacked |-> {}]

Init == /\ R = EmptyR /\ proc = 0 /\ snap = EmptyR /\ lives = 0 /\ losses = 0 /\ snaps = 0
        /\ M = [doc |-> [k \in Keys |-> NoDoc], tomb |-> [k \in Keys |-> [w |-> 0, v |-> NoV]],
                term |-> 0, log |-> {}, late |-> {}, letters |-> {}]
        /\ ops = {} /\ C = [c \in Committers |-> Idle] /\ F = NoFill /\ S = NoSweep
        /\ used = [evictions |-> 0, fills |-> 0, conditional |-> 0, sweeps |-> 0, retries |-> 0]
        /\ G = [key |-> <<>>, tok |-> <<>>, acknowledged |-> {}, bad |-> {}, refused |-> {}, stale |-> {}, back |-> {}]

Redis == <<R, proc, lives>>
Memory == <<snap, losses, snaps>>

\* The present life, made if need be (the recipes' present_life).
Present == proc # 0 /\ R.life = proc
LifeOK(r) == IF UseLife THEN proc # 0 /\ r.life = proc ELSE TRUE
Living(r) == IF LifeOK(r) THEN r ELSE [r EXCEPT !.life = lives + 1]
Proc(r) == IF LifeOK(r) THEN proc ELSE lives + 1
Lives(r) == IF LifeOK(r) THEN lives ELSE lives + 1

\* e: "write", "fill", or "backfill", which tells of no write. Each takes the key's ticket away.
Append1(r, k, e, v) == [r EXCEPT !.stream = Append(@, [id |-> r.last + 1, k |-> k, life |-> r.life, e |-> e, v |-> v]),
                                 !.last = @ + 1, !.ticket[k] = 0]
Entries(r) == {r.stream[i] : i \in 1..Len(r.stream)}
Waits(r, k) == \E e \in Entries(r) : e.k = k
Written(r, k, since) == \E e \in Entries(r) : e.k = k /\ e.e = "write" /\ e.id > since

MaxAcked(k) == LET s == {n \in G.acknowledged : G.key[n] = k} IN IF s = {} THEN 0 ELSE CHOOSE n \in s : \A m \in s : m <= n

\* What MongoDB holds of k: a document that is not dead, or a delete.
Alive(k) == M.doc[k].p /\ Less(M.tomb[k].v, M.doc[k].v)
Eff(k) == IF Alive(k) THEN M.doc[k].w ELSE M.tomb[k].w
EffV(k) == IF Alive(k) THEN M.doc[k].v ELSE M.tomb[k].v
AsMongo(k) == [k |-> k, w |-> IF Alive(k) THEN M.doc[k].w ELSE 0, s |-> IF Alive(k) THEN "doc" ELSE "cold", v |-> EffV(k)]
State(found) == [w |-> found.w, s |-> found.s]

Newest == IF M.log = {} THEN NoB ELSE CHOOSE b \in M.log : \A other \in M.log : ~Less(b.v, other.v)
\* The newest entry that was there when what has this version was read; NewerWrites._is_newer
At(v, otherwise) == LET s == {b \in M.log : ~Less(b.v, v)} IN
                    IF s = {} THEN otherwise ELSE (CHOOSE b \in s : \A other \in s : ~Less(other.v, b.v)).newest
\* Store.has_come
HasCome(b) == \A k \in b.ids : (M.doc[k].p /\ ~Less(M.doc[k].v, b.v)) \/ ~Less(M.tomb[k].v, b.v)
\* Head.is_news
IsNews(v) == \E pair \in M.late : Less(pair[1], v) /\ Less(v, pair[2])

----------------------------------------------------------------------------------
\* Clients. kind: "doc", "del", or "bad": a document that MongoDB refuses, each time. A conditional write is one that goes by
\* what Redis has fallen back to: another one is as good as a plain write.
Base(k) == IF R.doc[k].s = "cold" THEN Eff(k) ELSE R.doc[k].w
Write(k, kind, conditional) ==
  /\ Len(G.key) < MaxWrites
  /\ kind = "bad" => Cardinality(G.bad) < MaxRefusals
  /\ conditional => /\ used.conditional < MaxConditional /\ Base(k) < MaxAcked(k)
                    /\ CheckedForConditional => Present /\ R.checked = R.life
  /\ LET n == Len(G.key) + 1
         s == Append1(Living(R), k, "write", NoV) IN
     /\ R' = [s EXCEPT !.doc[k] = [w |-> n, s |-> IF kind = "del" THEN "del" ELSE "doc"]]
     /\ proc' = Proc(R) /\ lives' = Lives(R)
     /\ G' = [G EXCEPT !.key = Append(@, k), !.tok = Append(@, <<s.life, s.last>>),
                       !.bad = IF kind = "bad" THEN @ \cup {n} ELSE @,
                       !.stale = IF conditional THEN @ \cup {n} ELSE @]
     /\ used' = IF conditional THEN [used EXCEPT !.conditional = @ + 1] ELSE used
  /\ UNCHANGED <<Memory, M, ops, C, F, S>>

\* Evicted or expired: only what doesn't wait to be committed.
Evict(k) ==
  /\ used.evictions < MaxEvictions /\ R.doc[k].s = "doc" /\ ~Waits(R, k)
  /\ R' = [R EXCEPT !.doc[k] = Cold] /\ used' = [used EXCEPT !.evictions = @ + 1]
  /\ UNCHANGED <<proc, lives, Memory, M, ops, C, F, S, G>>

\* A fill: a ticket in Redis, a read in MongoDB, and in one step in Redis what was read, if the ticket is still there.
Ticket(k) ==
  /\ F.pc = "idle" /\ used.fills < MaxFills /\ R.doc[k].s # "doc" /\ ~Written(R, k, 0)
  /\ used' = [used EXCEPT !.fills = @ + 1] /\ R' = [R EXCEPT !.ticket[k] = used'.fills]
  /\ F' = [NoFill EXCEPT !.pc = "asks", !.k = k, !.ticket = used'.fills]
  /\ UNCHANGED <<proc, lives, Memory, M, ops, C, S, G>>
FillRead ==
  /\ F.pc = "asks" /\ F' = IF Alive(F.k) THEN [F EXCEPT !.pc = "has", !.found = AsMongo(F.k)] ELSE NoFill
  /\ UNCHANGED <<Redis, Memory, M, ops, C, S, used, G>>
Fill ==
  /\ F.pc = "has" /\ F' = NoFill
  /\ IF R.doc[F.k].s # "doc" /\ (TicketInFill => R.ticket[F.k] = F.ticket)
     THEN /\ R' = [Append1(Living(R), F.k, "fill", F.found.v) EXCEPT !.doc[F.k] = State(F.found)]
          /\ proc' = Proc(R) /\ lives' = Lives(R)
     ELSE UNCHANGED Redis
  /\ UNCHANGED <<Memory, M, ops, C, S, used, G>>

----------------------------------------------------------------------------------
\* Losses of memory. A snapshot that nothing falls back to any more is forgotten.
Snapshot == /\ snaps < MaxSnaps /\ losses < MaxLosses /\ snap # R /\ snap' = R /\ snaps' = snaps + 1
            /\ UNCHANGED <<Redis, losses, M, ops, C, F, S, used, G>>
Lose(memory) == /\ losses < MaxLosses /\ losses' = losses + 1 /\ R' = memory
                /\ snap' = (IF losses' = MaxLosses THEN EmptyR ELSE snap) /\ snaps' = (IF losses' = MaxLosses THEN MaxSnaps ELSE snaps)
                /\ UNCHANGED <<lives, M, ops, C, F, S, used, G>>
Crash == Lose(snap) /\ proc' = 0
\* A is demoted, B (which lagged) promoted, and A promoted again with B's data: A's process is the same one.
Failback == ~ReplidInLife /\ Lose(snap) /\ UNCHANGED proc
Flush == Lose(EmptyR) /\ UNCHANGED proc

----------------------------------------------------------------------------------
\* A committer; worker/commit/begin_term.py, in its order.
Again == [Idle EXCEPT !.pc = "life"]
Mine(c) == R.lease = c
SameLife(c) == Present /\ C[c].life = R.life
V(c) == <<C[c].term, C[c].batch>>
OpsOf(c, v) == {o \in ops : o.c = c /\ o.v = v}

\* Of two, one that died is one that is frozen for ever.
Die(c) == /\ C[c].pc # "idle" /\ Cardinality(Committers) = 1 /\ C' = [C EXCEPT ![c] = Idle]
          /\ UNCHANGED <<Redis, Memory, M, ops, F, S, used, G>>

\* Another's has expired then, if there is one.
TakeLease(c) ==
  /\ C[c].pc = "idle" /\ M.term < MaxTerm
  /\ R' = [R EXCEPT !.lease = c] /\ C' = [C EXCEPT ![c] = Again]
  /\ UNCHANGED <<proc, lives, Memory, M, ops, F, S, used, G>>

\* Mine.learn. The life comes first: a term that is begun after it is above all that was acknowledged in lives before.
Learn(c) ==
  /\ C[c].pc = "life" /\ M.term < MaxTerm
  /\ R' = Living(R) /\ proc' = Proc(R) /\ lives' = Lives(R)
  /\ C' = [C EXCEPT ![c].pc = "begin", ![c].life = R'.life]
  /\ UNCHANGED <<Memory, M, ops, F, S, used, G>>

\* Log.begin_term, Log.newest
BeginTerm(c) ==
  /\ C[c].pc = "begin" /\ M' = [M EXCEPT !.term = IF TermOn \/ @ = 0 THEN @ + 1 ELSE @]
  /\ C' = [C EXCEPT ![c].pc = "look", ![c].term = M'.term, ![c].b = Newest, ![c].batch = IF TermOn THEN 0 ELSE Newest.v[2]]
  /\ UNCHANGED <<Redis, Memory, ops, F, S, used, G>>

\* _look, Log.ids_above, has_come
Look(c) ==
  /\ C[c].pc = "look"
  /\ LET b == C[c].b
         onStream == \E e \in Entries(R) : e.id = b.newest[2] /\ (UseLife => e.life = b.newest[1])
         come == HasCome(b)
         certain == IF come \/ ~CertainOn THEN b.upto ELSE b.certain
         forgotten == b # NoB /\ Less(R.acked.v, b.v) /\ (NewestTest => ~onStream) /\ GiveBackOn
     IN C' = IF ~Mine(c) THEN [C EXCEPT ![c] = Idle]
             ELSE IF UseLife /\ ~SameLife(c) THEN [C EXCEPT ![c] = Again]
             ELSE [C EXCEPT ![c].pc = IF b # NoB /\ b.newest[1] # C[c].life /\ LateOn THEN "late" ELSE "giveback",
                            ![c].above = R.acked.v,
                            ![c].left = IF forgotten THEN [v |-> b.v, life |-> certain[1], id |-> certain[2]] ELSE R.acked,
                            ![c].low = IF b = NoB \/ b.newest[1] = C[c].life \/ ~LateOn THEN NoV
                                       ELSE IF come THEN b.v ELSE <<b.v[1], b.v[2] - 1>>,
                            ![c].todo = IF forgotten THEN UNION {o.ids : o \in {o \in M.log : Less(R.acked.v, o.v)}} ELSE {}]
  /\ UNCHANGED <<Redis, Memory, M, ops, F, S, used, G>>

\* Log.keep_late
KeepLate(c) ==
  /\ C[c].pc = "late"
  /\ IF M.term = C[c].term
     THEN /\ M' = [M EXCEPT !.late = {p \in @ : p[1] # C[c].low} \cup {<<C[c].low, <<C[c].term, 0>>>>}]
          /\ C' = [C EXCEPT ![c].pc = "giveback", ![c].low = NoV]
     ELSE C' = [C EXCEPT ![c] = Idle] /\ UNCHANGED M
  /\ UNCHANGED <<Redis, Memory, ops, F, S, used, G>>

\* Store.above
GiveBackRead(c, k) ==
  /\ C[c].pc = "giveback" /\ k \in C[c].todo /\ C[c].found = NoFound
  /\ C' = IF Less(C[c].above, EffV(k)) THEN [C EXCEPT ![c].found = AsMongo(k)] ELSE [C EXCEPT ![c].todo = @ \ {k}]
  /\ UNCHANGED <<Redis, Memory, M, ops, F, S, used, G>>

\* The recipes' restore, and then Store.set_versions
GiveBack(c) ==
  /\ C[c].pc = "giveback" /\ C[c].found # NoFound
  /\ LET found == C[c].found
         k == found.k
         at == At(found.v, C[c].b.newest) IN
     IF ~Mine(c) THEN C' = [C EXCEPT ![c] = Idle] /\ UNCHANGED <<R, ops>>
     ELSE IF LifeInGiveBack /\ UseLife /\ ~SameLife(c) THEN C' = [C EXCEPT ![c] = Again] /\ UNCHANGED <<R, ops>>
     ELSE /\ C' = [C EXCEPT ![c].todo = @ \ {k}, ![c].found = NoFound]
          /\ R' = IF \E e \in Entries(R) : e.k = k /\ e.e = "write" /\
                       \/ PresentLifeWins /\ e.life = C[c].life
                       \/ NewerEntryWins /\ Less(at, <<e.life, e.id>>)
                  THEN R ELSE [R EXCEPT !.doc[k] = State(found), !.ticket[k] = 0]
          /\ ops' = IF VersionOfGivenBack
                    THEN ops \cup {[t |-> "raise", c |-> c, k |-> k, held |-> found.v, v |-> <<C[c].term, 0>>]} ELSE ops
  /\ UNCHANGED <<proc, lives, Memory, M, F, S, used, G>>

\* _CHECKED. With what is given back, Redis is told again what was refused above.
Check(c) ==
  /\ C[c].pc = "giveback" /\ C[c].todo = {} /\ OpsOf(c, <<C[c].term, 0>>) = {}
  /\ IF ~Mine(c) THEN C' = [C EXCEPT ![c] = Idle] /\ UNCHANGED R
     ELSE IF UseLife /\ ~SameLife(c) THEN C' = [C EXCEPT ![c] = Again] /\ UNCHANGED R
     ELSE /\ R' = [R EXCEPT !.checked = R.life, !.acked = C[c].left,
                            !.refused = @ \cup UNION {l.toks : l \in {l \in M.letters : Less(C[c].above, C[c].left.v) /\ Less(C[c].above, l.v)}}]
          /\ LET b == C[c].b IN
             C' = [C EXCEPT ![c] = [Idle EXCEPT !.pc = "loop", !.term = C[c].term, !.batch = C[c].batch, !.life = C[c].life,
                            !.left = C[c].left, !.unacked = IF Less(C[c].left.v, b.v) THEN {<<b.v, b.newest[2]>>} ELSE {}]]
  /\ UNCHANGED <<proc, lives, Memory, M, ops, F, S, used, G>>

----------------------------------------------------------------------------------
\* worker/commit/committer.py

\* What becomes of a key: decide in worker/commit/read/decide.py.
Decision(k, es, doc) ==
  LET mine == {e \in es : e.k = k}
      told == {e \in mine : e.e # "backfill"}
      Latest(some) == CHOOSE e \in some : \A o \in some : o.id <= e.id
      last == Latest(IF told = {} THEN mine ELSE told)
      token == <<Latest(mine).life, Latest(mine).id>>
  IN [w |-> doc.w, s |-> doc.s, from |-> last.v, e |-> last.e,
      d |-> IF last.e = "fill" THEN "verify"
            ELSE IF doc.s = "doc" /\ (doc.w \in G.bad \/ token \in R.refused) THEN "refuse"
            ELSE IF doc.s = "doc" THEN "upsert"
            ELSE IF doc.s = "del" THEN "delete"
            ELSE IF last.e = "write" THEN "lost" ELSE "nothing"]

\* Decider.read in worker/commit/read/read_and_decide.py, and batch_to_write: the first n entries, one state per key, read in one
\* step. What was refused before stays so.
Read(c) ==
  /\ C[c].pc = "loop" /\ Len(R.stream) > 0
  /\ IF (UseLife /\ ~SameLife(c)) \/ R.acked # C[c].left
     THEN C' = [C EXCEPT ![c] = Again] /\ UNCHANGED ops
     ELSE \E n \in 1..Len(R.stream) :
          LET es == {R.stream[i] : i \in 1..n}
              ks == {e.k : e \in es}
              number == IF HigherNumber \/ C[c].batch = 0 \/ C[c].left.v = V(c) THEN C[c].batch + 1 ELSE C[c].batch
              v == <<C[c].term, number>>
              states == [k \in ks |-> Decision(k, es, R.doc[k])]
              newest == <<R.stream[Len(R.stream)].life, R.stream[Len(R.stream)].id>>
          IN /\ C' = [C EXCEPT ![c].pc = "tombs", ![c].batch = number, ![c].states = states, ![c].es = es,
                      ![c].refused = {<<e.life, e.id>> : e \in es} \cap R.refused,
                      ![c].b = [v |-> v, upto |-> <<R.stream[n].life, R.stream[n].id>>, newest |-> newest,
                                certain |-> <<C[c].left.life, C[c].left.id>>,
                                ids |-> {k \in ks : states[k].d \notin {"verify", "nothing"}}]]
             /\ ops' = ops \cup {[t |-> "tomb", c |-> c, k |-> k, w |-> states[k].w, v |-> v, e |-> states[k].e] : k \in {k \in ks : states[k].d = "delete"}}
  /\ UNCHANGED <<Redis, Memory, M, F, S, used, G>>

Todo(c, d) == {k \in DOMAIN C[c].states : C[c].states[k].d \in d}

\* Writer.commit: tombstones first, then documents and the batch together.
SendDocs(c) ==
  /\ C[c].pc = "tombs" /\ (TombFirst => OpsOf(c, V(c)) = {})
  /\ ops' = ops \cup {[t |-> C[c].states[k].d, c |-> c, k |-> k, w |-> C[c].states[k].w, v |-> V(c), e |-> C[c].states[k].e] : k \in Todo(c, {"upsert", "delete"})}
                \cup {[t |-> "log", c |-> c, v |-> V(c), b |-> C[c].b]}
  /\ C' = [C EXCEPT ![c].pc = "docs", ![c].todo = Todo(c, {"refuse", "lost"}), ![c].unacked = @ \cup {<<V(c), C[c].b.newest[2]>>}]
  /\ UNCHANGED <<Redis, Memory, M, F, S, used, G>>

\* worker/commit/try_again.py: MongoDB doesn't answer; it is read again, with a higher number. What was sent may arrive later.
ReadAgain(c) ==
  /\ C[c].pc \in {"tombs", "docs"} /\ OpsOf(c, V(c)) # {} /\ used.retries < MaxRetries
  /\ used' = [used EXCEPT !.retries = @ + 1]
  /\ C' = [C EXCEPT ![c].pc = "loop", ![c].states = <<>>, ![c].es = {}, ![c].refused = {}, ![c].b = NoB, ![c].todo = {}]
  /\ UNCHANGED <<Redis, Memory, M, ops, F, S, G>>

\* refuse in worker/commit/roll_back.py: a dead letter; the entries that weren't committed before are noted as refused; what MongoDB
\* holds instead gets the version of what was refused, or a tombstone has it.
Refuse(c, k) ==
  /\ C[c].pc = "docs" /\ OpsOf(c, V(c)) = {} /\ k \in C[c].todo /\ C[c].states[k].d \in {"refuse", "lost"}
  /\ LET held == EffV(k)
         isFence == \E l \in M.letters : l.k = k /\ l.v = held
         upto == {u[2] : u \in {u \in C[c].unacked : u[1] = held /\ ~isFence}}
         toks == {<<e.life, e.id>> : e \in {e \in C[c].es : e.k = k /\ e.e = "write" /\ \A id \in upto : e.id > id}}
     IN /\ M' = [M EXCEPT !.letters = @ \cup {[k |-> k, v |-> V(c), toks |-> toks]}]
        /\ R' = IF RefusedIsRecorded THEN [R EXCEPT !.refused = @ \cup toks] ELSE R
        /\ C' = [C EXCEPT ![c].todo = @ \ {k}, ![c].refused = @ \cup toks, ![c].states[k].d = IF @ = "refuse" THEN "back" ELSE "nothing"]
        /\ ops' = IF VersionOfRefused THEN ops \cup {[t |-> "raise", c |-> c, k |-> k, held |-> held, v |-> V(c)]} ELSE ops
  /\ UNCHANGED <<proc, lives, Memory, F, S, used, G>>

\* What MongoDB holds instead of what was refused; or instead of what Redis was filled with, if that is another state.
RollBackRead(c, k) ==
  /\ C[c].pc = "docs" /\ OpsOf(c, V(c)) = {} /\ C[c].todo = {} /\ C[c].found = NoFound /\ k \in Todo(c, {"back", "verify"})
  /\ C' = IF C[c].states[k].s # "doc" \/ (C[c].states[k].d = "verify" /\ (~VerifyOn \/ (Alive(k) /\ M.doc[k].v = C[c].states[k].from)))
          THEN [C EXCEPT ![c].states[k].d = "nothing"] ELSE [C EXCEPT ![c].found = AsMongo(k)]
  /\ UNCHANGED <<Redis, Memory, M, ops, F, S, used, G>>

\* The recipes' roll_back: Redis gets it, if it still has the very state that was seen. A key that is written again further
\* on is rolled back with its last write, if at all. An entry has it verified.
RollBack(c) ==
  /\ C[c].pc = "docs" /\ C[c].found # NoFound
  /\ LET found == C[c].found
         k == found.k
         seen == [w |-> C[c].states[k].w, s |-> C[c].states[k].s] IN
     /\ C' = [C EXCEPT ![c].found = NoFound, ![c].states[k].d = "nothing"]
     /\ IF /\ LifeInRollBack /\ UseLife => SameLife(c)
           /\ VeryStateInRollBack => R.doc[k] = seen
           /\ LastWriteInRollBack => ~Written(R, k, C[c].b.upto[2])
        THEN /\ R' = [Append1(Living(R), k, "fill", found.v) EXCEPT !.doc[k] = State(found)]
             /\ proc' = Proc(R) /\ lives' = Lives(R)
        ELSE UNCHANGED Redis
  /\ UNCHANGED <<Memory, M, ops, F, S, used, G>>

\* The writes whose entries the batch holds, or whose life's tokens are below them; and which of them were refused.
Refused(c) == {n \in 1..Len(G.tok) : G.tok[n] \in C[c].refused}
Told(c) == {n \in 1..Len(G.tok) : \E e \in C[c].es : e.life = G.tok[n][1] /\ G.tok[n][2] <= e.id} \ (G.refused \cup Refused(c))

\* worker/commit/acknowledge.py
Ack(c) ==
  /\ C[c].pc = "docs" /\ OpsOf(c, V(c)) = {} /\ C[c].todo = {} /\ Todo(c, {"back", "verify"}) = {}
  /\ IF LeaseInAck /\ ~Mine(c) THEN C' = [C EXCEPT ![c] = Idle] /\ UNCHANGED <<R, G>>
     ELSE IF (AckedInAck /\ R.acked # C[c].left) \/ (LifeInAck /\ UseLife /\ ~SameLife(c))
     THEN C' = [C EXCEPT ![c] = Again] /\ UNCHANGED <<R, G>>
     ELSE LET last == C[c].b.upto[2]
              r == [R EXCEPT !.stream = SelectSeq(@, LAMBDA e : e.id > last)] IN
          /\ R' = [r EXCEPT !.acked = [v |-> V(c), life |-> C[c].b.upto[1], id |-> last],
                            \* the mark of a delete goes with its last entry
                            !.doc = [k \in Keys |-> IF R.doc[k].s = "del" /\ ~Waits(r, k) THEN Cold ELSE R.doc[k]]]
          /\ C' = [C EXCEPT ![c] = [Idle EXCEPT !.pc = "loop", !.term = C[c].term, !.batch = C[c].batch, !.life = C[c].life, !.left = R'.acked]]
          /\ G' = [G EXCEPT !.acknowledged = @ \cup Told(c), !.refused = @ \cup Refused(c)]
  /\ UNCHANGED <<proc, lives, Memory, M, ops, F, S, used>>

----------------------------------------------------------------------------------
\* An operation reaches MongoDB, whenever that is.
Apply(o) ==
  /\ o \in ops
  /\ LET inserts == o.t = "upsert" /\ ~M.doc[o.k].p /\ LookAfterInsert
     IN ops' = (ops \ {o}) \cup (IF inserts THEN {[o EXCEPT !.t = "lookup"]} ELSE {})
  /\ M' = CASE o.t = "tomb" -> [M EXCEPT !.tomb[o.k] = IF Less(@.v, o.v) THEN [w |-> o.w, v |-> o.v] ELSE @]
            [] o.t = "delete" -> [M EXCEPT !.doc[o.k] = IF VersionFilter => Less(@.v, o.v) THEN NoDoc ELSE @]
            [] o.t = "upsert" -> [M EXCEPT !.doc[o.k] = IF ~@.p \/ ~VersionFilter \/ Less(@.v, o.v)
                                                        THEN [w |-> o.w, p |-> TRUE, v |-> o.v] ELSE @]
            \* Store._delete_again
            [] o.t = "lookup" -> [M EXCEPT !.doc[o.k] = IF Less(o.v, M.tomb[o.k].v) /\ Less(@.v, M.tomb[o.k].v) THEN NoDoc ELSE @]
            \* Store.fence_off, set_version, set_versions: only what is still the very state, or nothing
            [] o.t = "raise" -> [M EXCEPT !.doc[o.k].v = IF M.doc[o.k].p /\ @ = o.held THEN o.v ELSE @,
                                          !.tomb[o.k].v = IF @ = o.held \/ (o.held = NoV /\ Less(@, o.v)) THEN o.v ELSE @]
            [] o.t = "log" -> [M EXCEPT !.log = @ \cup {o.b}]
  /\ G' = IF o.t \in {"tomb", "upsert"} /\ Eff(o.k)' < Eff(o.k) THEN [G EXCEPT !.back = @ \cup {o.e}] ELSE G
  /\ UNCHANGED <<Redis, Memory, C, F, S, used>>

----------------------------------------------------------------------------------
\* A sweep: compares; gears/progress/compare.py, worker/audit/prove_drift.py
SweepLook(k) ==
  /\ S.pc = "idle" /\ used.sweeps < MaxSweeps /\ ~Waits(R, k)
  /\ R.doc[k].s = "doc" /\ ~(Alive(k) /\ M.doc[k].w = R.doc[k].w)
  /\ S' = [NoSweep EXCEPT !.pc = "acts", !.k = k, !.w = R.doc[k].w, !.last = R.last, !.term = M.term,
                          !.news = IsNews(EffV(k)), !.found = AsMongo(k)]
  /\ used' = [used EXCEPT !.sweeps = @ + 1]
  /\ UNCHANGED <<Redis, Memory, M, ops, C, F, G>>
\* and repairs; worker/audit/repair.py: what is news Redis is given, the rest is captured anew.
SweepAct ==
  /\ S.pc = "acts" /\ S' = NoSweep
  /\ LET k == S.k IN
     IF ProofHolds /\ ~(R.doc[k] = [w |-> S.w, s |-> "doc"] /\ S.found = AsMongo(k) /\ S.news = IsNews(EffV(k)))
     THEN UNCHANGED <<Redis, ops>>
     ELSE IF NewsInSweep /\ S.news
     THEN IF R.doc[k] = [w |-> S.w, s |-> "doc"] /\ ~Written(R, k, S.last)
          THEN /\ R' = [Append1(Living(R), k, "fill", S.found.v) EXCEPT !.doc[k] = State(S.found)]
               /\ proc' = Proc(R) /\ lives' = Lives(R)
               /\ ops' = ops \cup {[t |-> "raise", c |-> "sweep", k |-> k, held |-> S.found.v, v |-> <<S.term, 0>>]}
          ELSE UNCHANGED <<Redis, ops>>
     ELSE /\ IF Present /\ R.checked = R.life THEN R' = Append1(R, k, "backfill", NoV) ELSE UNCHANGED R
          /\ UNCHANGED <<proc, lives, ops>>
  /\ UNCHANGED <<Memory, M, C, F, used, G>>

Next == \/ \E k \in Keys, kind \in {"doc", "del", "bad"}, conditional \in BOOLEAN : Write(k, kind, conditional)
        \/ Snapshot \/ Crash \/ Failback \/ Flush
        \/ \E c \in Committers : Die(c) \/ TakeLease(c) \/ Learn(c) \/ BeginTerm(c) \/ Look(c) \/ KeepLate(c) \/ GiveBack(c)
                                 \/ Check(c) \/ Read(c) \/ SendDocs(c) \/ ReadAgain(c) \/ RollBack(c) \/ Ack(c)
                                 \/ \E k \in Keys : GiveBackRead(c, k) \/ Refuse(c, k) \/ RollBackRead(c, k)
        \/ \E o \in ops : Apply(o)
        \/ FillRead \/ Fill \/ SweepAct
        \/ \E k \in Keys : SweepLook(k) \/ Evict(k) \/ Ticket(k)

Spec == Init /\ [][Next]_vars

----------------------------------------------------------------------------------
Checked == Present /\ R.checked = R.life
\* P1 to P4
AcknowledgedIsInMongo == \A k \in Keys : Eff(k) >= MaxAcked(k)
\* P6
CheckedRedisIsAsNew == Checked => \A k \in Keys : R.doc[k].s = "cold" \/ R.doc[k].w >= MaxAcked(k)
\* P7, as far as Redis tells: a token of the last acknowledged life
TokensAreTrue == \A n \in 1..Len(G.tok) : (Checked /\ R.acked.life = G.tok[n][1] /\ G.tok[n][2] <= R.acked.id /\ G.tok[n] \notin R.refused) =>
                   Eff(G.key[n]) >= n \/ n \in G.refused
\* P7
RefusedIsNotInMongo == \A n \in G.refused : ~(Alive(G.key[n]) /\ M.doc[G.key[n]].w = n)
AcknowledgedIsNotRefused == G.acknowledged \cap G.refused = {}
\* What MongoDB holds and a Redis that nobody has written to doesn't is known as news: a sweep that undid it took MongoDB back.
AheadIsNews == Checked => \A k \in Keys : (R.doc[k].s = "doc" /\ ~Waits(R, k)) => (Alive(k) /\ M.doc[k].w = R.doc[k].w) \/ IsNews(EffV(k))
SweepIsNoStepBack == "backfill" \notin G.back
\* Not promised: what nobody was told of, and nobody knows to have come, may be replaced by what Redis has fallen back to.
NeverBackwards == G.back = {}
\* No conditional write went by what Redis had fallen back to.
ConditionsAreTrue == G.stale = {}
Symmetry == Permutations(Committers)
=============================================================================
