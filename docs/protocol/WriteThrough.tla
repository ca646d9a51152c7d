------------------------------- MODULE WriteThrough -------------------------------
(* Write-through from Redis to MongoDB: versions (term, batch) are begun in MongoDB; a `life` names each unbroken
   stretch of Redis's memory.  *)
EXTENDS Naturals, Sequences, FiniteSets, TLC

CONSTANTS Keys, Committers, MaxWrites, MaxTerm, MaxLosses, MaxSnaps, MaxSweeps, MaxEvictions, MaxFills, MaxRefusals,
          MaxConditional,
          \* switches, to see what each mechanism is for
          UseLife, LifeInAck, LifeInGiveBack, AckedInAck, LeaseInAck, VersionFilter, TombFirst, LookAfterInsert,
          NewestTest, PresentLifeWins, NewerEntryWins, GiveBackOn, TermOn, ReplidInLife,
          TicketInFill, LifeInFill, VeryStateInRollBack, LastWriteInRollBack, VersionOfRefused, CheckedForConditional

None == "none"
NoV == <<0, 0>>
NoB == [v |-> NoV, upto |-> <<0, 0>>, newest |-> <<0, 0>>, certain |-> <<0, 0>>]
Less(a, b) == a[1] < b[1] \/ (a[1] = b[1] /\ a[2] < b[2])
\* A key in Redis: "doc" (present), "del" (marked as deleted), "cold" (neither: MongoDB is asked). w: the write it came by.
Cold == [w |-> 0, s |-> "cold"]

NoDoc == [w |-> 0, p |-> FALSE, v |-> NoV, at |-> NoV]

EmptyR == [doc |-> [k \in Keys |-> Cold], ticket |-> [k \in Keys |-> 0], stream |-> <<>>, last |-> 0, life |-> 0,
           acked |-> [v |-> NoV, life |-> 0, id |-> 0], checked |-> 0, lease |-> None]

VARIABLES R, proc, snap, lives, losses, snaps,   \* Redis
          mdoc, tomb, term, log, ops,            \* MongoDB
          C,                                     \* committers
          wkey, tok, acknowledged, sweeps,       \* ghosts: the key and token of each write
          F, used, bad, stale, refused           \* the fill under way; how often; writes that MongoDB refuses; that go by
                                                 \* what was forgotten; that were said to be refused

vars == <<R, proc, snap, lives, losses, snaps, mdoc, tomb, term, log, ops, C, wkey, tok, acknowledged, sweeps, F, used, bad, stale, refused>>
more == <<F, used, bad, stale, refused>>

NoFill == [pc |-> "idle", k |-> None, ticket |-> 0, life |-> 0, w |-> 0]

Idle == [pc |-> "idle", term |-> 0, batch |-> 0, life |-> 0, left |-> EmptyR.acked, b |-> NoB, todo |-> {},
         n |-> 0, segs |-> {}, states |-> <<>>, upto |-> <<0, 0>>, at |-> NoV, es |-> {}, back |-> {}]

Init == /\ R = EmptyR /\ proc = 0 /\ snap = EmptyR /\ lives = 0 /\ losses = 0 /\ snaps = 0
        /\ mdoc = [k \in Keys |-> NoDoc]
        /\ tomb = [k \in Keys |-> [w |-> 0, v |-> NoV, at |-> NoV]]
        /\ term = 0 /\ log = NoB /\ ops = {}
        /\ C = [c \in Committers |-> Idle]
        /\ wkey = <<>> /\ tok = <<>> /\ acknowledged = {} /\ sweeps = 0
        /\ F = NoFill /\ used = [evictions |-> 0, fills |-> 0, conditional |-> 0] /\ bad = {} /\ stale = {} /\ refused = {}

\* The present life, made if need be.
LifeOK(r) == IF UseLife THEN proc # 0 /\ r.life = proc ELSE TRUE
Living(r) == IF LifeOK(r) THEN r ELSE [r EXCEPT !.life = lives + 1]
Proc(r) == IF LifeOK(r) THEN proc ELSE lives + 1
Lives(r) == IF LifeOK(r) THEN lives ELSE lives + 1

Append1(r, k) == [r EXCEPT !.stream = Append(@, [id |-> r.last + 1, k |-> k, life |-> r.life]), !.last = @ + 1]
Waits(r, k) == \E i \in 1..Len(r.stream) : r.stream[i].k = k

MaxAcked(k) == LET s == {n \in acknowledged : wkey[n] = k} IN IF s = {} THEN 0 ELSE CHOOSE n \in s : \A m \in s : m <= n

\* What MongoDB holds of k: a document that is not dead, or a delete.
Alive(k) == mdoc[k].p /\ ~Less(mdoc[k].v, tomb[k].v)
Eff(k) == IF Alive(k) THEN mdoc[k].w ELSE tomb[k].w
EffV(k) == IF Alive(k) THEN mdoc[k].v ELSE tomb[k].v
At(k) == IF Alive(k) THEN mdoc[k].at ELSE tomb[k].at
AsMongo(k) == IF Alive(k) THEN [w |-> mdoc[k].w, s |-> "doc"] ELSE Cold

\* kind: "doc", "del", or "bad": a document that MongoDB refuses, each time.
Write(k, kind, conditional) ==
  /\ Len(wkey) < MaxWrites
  /\ kind = "bad" => Cardinality(bad) < MaxRefusals
  /\ conditional => /\ used.conditional < MaxConditional
                    /\ CheckedForConditional => proc # 0 /\ R.life = proc /\ R.checked = R.life
  /\ LET n == Len(wkey) + 1
         base == IF R.doc[k].s = "cold" THEN Eff(k) ELSE R.doc[k].w
         r == Living(R) IN LET s == Append1(r, k) IN
     /\ R' = [s EXCEPT !.doc[k] = [w |-> n, s |-> IF kind = "del" THEN "del" ELSE "doc"], !.ticket[k] = 0]
     /\ proc' = Proc(R) /\ lives' = Lives(R)
     /\ wkey' = Append(wkey, k) /\ tok' = Append(tok, <<s.life, s.last>>)
     /\ bad' = IF kind = "bad" THEN bad \cup {n} ELSE bad
     /\ stale' = IF conditional /\ base < MaxAcked(k) THEN stale \cup {n} ELSE stale
     /\ used' = IF conditional THEN [used EXCEPT !.conditional = @ + 1] ELSE used
  /\ UNCHANGED <<snap, losses, snaps, mdoc, tomb, term, log, ops, C, acknowledged, sweeps, F, refused>>

\* Evicted or expired: only what doesn't wait to be committed.
Evict(k) ==
  /\ used.evictions < MaxEvictions /\ R.doc[k].s = "doc" /\ ~Waits(R, k)
  /\ R' = [R EXCEPT !.doc[k] = Cold] /\ used' = [used EXCEPT !.evictions = @ + 1]
  /\ UNCHANGED <<proc, lives, snap, losses, snaps, mdoc, tomb, term, log, ops, C, wkey, tok, acknowledged, sweeps, F, bad, stale, refused>>

\* A fill: a ticket in Redis, a read in MongoDB, and in one step in Redis what was read, if the ticket is still there.
Ticket(k) ==
  /\ F.pc = "idle" /\ used.fills < MaxFills /\ R.doc[k].s = "cold" /\ ~Waits(R, k) /\ proc # 0 /\ R.life = proc
  /\ used' = [used EXCEPT !.fills = @ + 1] /\ R' = [R EXCEPT !.ticket[k] = used'.fills]
  /\ F' = [pc |-> "asks", k |-> k, ticket |-> used'.fills, life |-> R.life, w |-> 0]
  /\ UNCHANGED <<proc, lives, snap, losses, snaps, mdoc, tomb, term, log, ops, C, wkey, tok, acknowledged, sweeps, bad, stale, refused>>
FillRead ==
  /\ F.pc = "asks" /\ F' = IF Alive(F.k) THEN [F EXCEPT !.pc = "has", !.w = Eff(F.k)] ELSE NoFill
  /\ UNCHANGED <<R, proc, lives, snap, losses, snaps, mdoc, tomb, term, log, ops, C, wkey, tok, acknowledged, sweeps, used, bad, stale, refused>>
Fill ==
  /\ F.pc = "has" /\ F' = NoFill
  /\ R' = IF /\ R.doc[F.k].s = "cold" /\ ~Waits(R, F.k)
             /\ TicketInFill => R.ticket[F.k] = F.ticket
             /\ LifeInFill => proc # 0 /\ R.life = proc /\ F.life = R.life
          THEN [R EXCEPT !.doc[F.k] = [w |-> F.w, s |-> "doc"], !.ticket[F.k] = 0] ELSE R
  /\ UNCHANGED <<proc, lives, snap, losses, snaps, mdoc, tomb, term, log, ops, C, wkey, tok, acknowledged, sweeps, used, bad, stale, refused>>

Snapshot == /\ snaps < MaxSnaps /\ snap # R /\ snap' = R /\ snaps' = snaps + 1
            /\ UNCHANGED <<R, proc, lives, losses, mdoc, tomb, term, log, ops, C, wkey, tok, acknowledged, sweeps, more>>
Crash == /\ losses < MaxLosses /\ losses' = losses + 1 /\ R' = snap /\ proc' = 0
         /\ UNCHANGED <<snap, snaps, lives, mdoc, tomb, term, log, ops, C, wkey, tok, acknowledged, sweeps, more>>
\* A is demoted, B (which lagged) promoted, and A promoted again with B's data: A's process is the same one.
Failback == /\ losses < MaxLosses /\ losses' = losses + 1 /\ R' = snap /\ proc' = IF ReplidInLife THEN 0 ELSE proc
            /\ UNCHANGED <<snap, snaps, lives, mdoc, tomb, term, log, ops, C, wkey, tok, acknowledged, sweeps, more>>
Flush == /\ losses < MaxLosses /\ losses' = losses + 1 /\ R' = EmptyR
         /\ UNCHANGED <<proc, snap, snaps, lives, mdoc, tomb, term, log, ops, C, wkey, tok, acknowledged, sweeps, more>>

ExpireLease == /\ R.lease # None /\ R' = [R EXCEPT !.lease = None]
               /\ UNCHANGED <<proc, snap, lives, losses, snaps, mdoc, tomb, term, log, ops, C, wkey, tok, acknowledged, sweeps, more>>

Die(c) == /\ C[c].pc # "idle" /\ C' = [C EXCEPT ![c] = Idle]
          /\ UNCHANGED <<R, proc, snap, lives, losses, snaps, mdoc, tomb, term, log, ops, wkey, tok, acknowledged, sweeps, more>>

TakeLease(c) ==
  /\ C[c].pc = "idle" /\ R.lease = None /\ term < MaxTerm
  /\ R' = [R EXCEPT !.lease = c] /\ C' = [C EXCEPT ![c] = [Idle EXCEPT !.pc = "life"]]
  /\ UNCHANGED <<proc, snap, lives, losses, snaps, mdoc, tomb, term, log, ops, wkey, tok, acknowledged, sweeps, more>>

\* The life comes first: a term that is begun after it is above all that was acknowledged in lives before.
Learn(c) ==
  /\ C[c].pc = "life" /\ term < MaxTerm
  /\ R' = Living(R) /\ proc' = Proc(R) /\ lives' = Lives(R)
  /\ C' = [C EXCEPT ![c].pc = "begin", ![c].life = R'.life]
  /\ UNCHANGED <<snap, losses, snaps, mdoc, tomb, term, log, ops, wkey, tok, acknowledged, sweeps, more>>

BeginTerm(c) ==
  /\ C[c].pc = "begin" /\ term' = (IF TermOn \/ term = 0 THEN term + 1 ELSE term)
  /\ C' = [C EXCEPT ![c].pc = "look", ![c].term = term', ![c].b = log, ![c].batch = IF TermOn THEN 0 ELSE (log.v[2])]
  /\ UNCHANGED <<R, proc, snap, lives, losses, snaps, mdoc, tomb, log, ops, wkey, tok, acknowledged, sweeps, more>>

OnStream(r, e) == \E i \in 1..Len(r.stream) : r.stream[i].id = e[2] /\ (UseLife => r.stream[i].life = e[1])

Look(c) ==
  /\ C[c].pc = "look"
  /\ LET b == C[c].b
         forgotten == /\ b.v # NoV /\ Less(R.acked.v, b.v) /\ (NewestTest => ~OnStream(R, b.newest)) /\ GiveBackOn
     IN C' = IF R.lease # c THEN [C EXCEPT ![c] = Idle]
             ELSE IF UseLife /\ ~(proc # 0 /\ R.life = proc /\ C[c].life = R.life) THEN [C EXCEPT ![c] = [Idle EXCEPT !.pc = "life"]]
             ELSE [C EXCEPT ![c].pc = IF forgotten THEN "giveback" ELSE "check",
                          ![c].left = R.acked, ![c].todo = IF forgotten THEN Keys ELSE {}]
  /\ UNCHANGED <<R, proc, lives, snap, losses, snaps, mdoc, tomb, term, log, ops, wkey, tok, acknowledged, sweeps, more>>

Mine(c) == R.lease = c
SameLife(c) == proc # 0 /\ R.life = proc /\ C[c].life = R.life

GiveBack(c, k) ==
  /\ C[c].pc = "giveback" /\ k \in C[c].todo
  /\ IF ~Mine(c) THEN C' = [C EXCEPT ![c] = Idle] /\ UNCHANGED R
     ELSE IF LifeInGiveBack /\ UseLife /\ ~SameLife(c) THEN C' = [C EXCEPT ![c] = [Idle EXCEPT !.pc = "life"]] /\ UNCHANGED R
     ELSE /\ C' = [C EXCEPT ![c].todo = @ \ {k}]
          /\ IF Less(C[c].left.v, EffV(k)) /\ ~(\E i \in 1..Len(R.stream) : R.stream[i].k = k /\
                   \/ PresentLifeWins /\ R.stream[i].life = C[c].life
                   \/ NewerEntryWins /\ Less(At(k), <<R.stream[i].life, R.stream[i].id>>))
             THEN R' = [R EXCEPT !.doc[k] = AsMongo(k), !.ticket[k] = 0]
             ELSE UNCHANGED R
  /\ UNCHANGED <<proc, snap, lives, losses, snaps, mdoc, tomb, term, log, ops, wkey, tok, acknowledged, sweeps, more>>

EndGiveBack(c) ==
  /\ C[c].pc = "giveback" /\ C[c].todo = {}
  /\ IF ~Mine(c) THEN C' = [C EXCEPT ![c] = Idle] /\ UNCHANGED R
     ELSE IF LifeInGiveBack /\ UseLife /\ ~SameLife(c) THEN C' = [C EXCEPT ![c] = [Idle EXCEPT !.pc = "life"]] /\ UNCHANGED R
     ELSE LET b == C[c].b IN
          /\ R' = [R EXCEPT !.acked = [v |-> b.v, life |-> b.certain[1], id |-> b.certain[2]]]
          /\ C' = [C EXCEPT ![c].pc = "check", ![c].left = R'.acked]
  /\ UNCHANGED <<proc, snap, lives, losses, snaps, mdoc, tomb, term, log, ops, wkey, tok, acknowledged, sweeps, more>>

Check(c) ==
  /\ C[c].pc = "check"
  /\ IF ~Mine(c) THEN C' = [C EXCEPT ![c] = Idle] /\ UNCHANGED R
     ELSE IF UseLife /\ ~SameLife(c) THEN C' = [C EXCEPT ![c] = [Idle EXCEPT !.pc = "life"]] /\ UNCHANGED R
     ELSE R' = [R EXCEPT !.checked = R.life] /\ C' = [C EXCEPT ![c].pc = "loop"]
  /\ UNCHANGED <<proc, snap, lives, losses, snaps, mdoc, tomb, term, log, ops, wkey, tok, acknowledged, sweeps, more>>

\* A batch: the first n entries, one state per key, read in one step.
Read(c) ==
  /\ C[c].pc = "loop" /\ Len(R.stream) > 0
  /\ IF (UseLife /\ ~SameLife(c)) \/ R.acked # C[c].left
     THEN C' = [C EXCEPT ![c] = [Idle EXCEPT !.pc = "life"]] /\ UNCHANGED ops
     ELSE \E n \in 1..Len(R.stream) :
          LET es == {R.stream[i] : i \in 1..n}
              ks == {e.k : e \in es}
              v == <<C[c].term, C[c].batch + 1>>
              segs == {<<e.life, e.id>> : e \in es}
              newest == <<R.stream[Len(R.stream)].life, R.stream[Len(R.stream)].id>>
              upto == <<R.stream[n].life, R.stream[n].id>>
              dels == {k \in ks : R.doc[k].s = "del"}
              at == <<C[c].life, R.last>>
              tombops == {[t |-> "tomb", c |-> c, k |-> k, w |-> R.doc[k].w, v |-> v, at |-> at] : k \in dels}
          IN /\ C' = [C EXCEPT ![c].pc = "tombs", ![c].batch = @ + 1, ![c].n = n, ![c].segs = segs, ![c].upto = upto,
                      ![c].states = [k \in ks |-> R.doc[k]], ![c].at = at,
                      ![c].es = es, ![c].b = [v |-> v, upto |-> upto, newest |-> newest, certain |-> <<C[c].left.life, C[c].left.id>>]]
             /\ ops' = ops \cup tombops
  /\ UNCHANGED <<R, proc, snap, lives, losses, snaps, mdoc, tomb, term, log, wkey, tok, acknowledged, sweeps, more>>

OpsOf(c, v) == {o \in ops : o.c = c /\ o.v = v}
V(c) == <<C[c].term, C[c].batch>>

SendDocs(c) ==
  /\ C[c].pc = "tombs" /\ (TombFirst => OpsOf(c, V(c)) = {})
  /\ LET v == V(c) IN
     ops' = ops \cup {[t |-> IF C[c].states[k].s = "doc" THEN "upsert" ELSE "delete", c |-> c, k |-> k, w |-> C[c].states[k].w, v |-> v,
                       at |-> C[c].at] : k \in {k \in DOMAIN C[c].states : C[c].states[k].s # "cold"}}
                \cup {[t |-> "log", c |-> c, k |-> "log", w |-> 0, v |-> v, e |-> C[c].b]}
  /\ C' = [C EXCEPT ![c].pc = "docs",
                    ![c].back = {k \in DOMAIN C[c].states : C[c].states[k].s = "doc" /\ C[c].states[k].w \in bad}]
  /\ UNCHANGED <<R, proc, snap, lives, losses, snaps, mdoc, tomb, term, log, wkey, tok, acknowledged, sweeps, more>>

\* An operation reaches MongoDB, whenever that is.
Apply(o) ==
  /\ o \in ops
  /\ CASE o.t = "tomb" -> /\ tomb' = [tomb EXCEPT ![o.k] = IF Less(@.v, o.v) THEN [w |-> o.w, v |-> o.v, at |-> o.at] ELSE @]
                          /\ ops' = ops \ {o} /\ UNCHANGED <<mdoc, log>>
       [] o.t = "delete" -> /\ mdoc' = [mdoc EXCEPT ![o.k] = IF @.p /\ (VersionFilter => Less(@.v, o.v)) THEN NoDoc ELSE @]
                            /\ ops' = ops \ {o} /\ UNCHANGED <<tomb, log>>
       \* Refused: what MongoDB holds instead gets the version of what was refused.
       [] o.t = "upsert" /\ o.w \in bad ->
            /\ mdoc' = IF VersionOfRefused /\ Alive(o.k) /\ Less(mdoc[o.k].v, o.v)
                       THEN [mdoc EXCEPT ![o.k].v = o.v, ![o.k].at = o.at] ELSE mdoc
            /\ tomb' = IF VersionOfRefused /\ ~Alive(o.k) /\ Less(tomb[o.k].v, o.v)
                       THEN [tomb EXCEPT ![o.k].v = o.v, ![o.k].at = o.at] ELSE tomb
            /\ ops' = ops \ {o} /\ UNCHANGED log
       [] o.t = "upsert" /\ o.w \notin bad ->
            /\ mdoc' = [mdoc EXCEPT ![o.k] = IF ~@.p \/ ~VersionFilter \/ Less(@.v, o.v) THEN [w |-> o.w, p |-> TRUE, v |-> o.v, at |-> o.at] ELSE @]
            /\ ops' = (ops \ {o}) \cup (IF ~mdoc[o.k].p /\ LookAfterInsert THEN {[o EXCEPT !.t = "lookup"]} ELSE {})
            /\ UNCHANGED <<tomb, log>>
       [] o.t = "lookup" -> /\ mdoc' = [mdoc EXCEPT ![o.k] = IF @.p /\ Less(o.v, tomb[o.k].v) /\ ~Less(tomb[o.k].v, @.v) THEN NoDoc ELSE @]
                            /\ ops' = ops \ {o} /\ UNCHANGED <<tomb, log>>
       [] o.t = "log" -> /\ log' = IF Less(log.v, o.v) THEN o.e ELSE log
                         /\ ops' = ops \ {o} /\ UNCHANGED <<mdoc, tomb>>
  /\ UNCHANGED <<R, proc, snap, lives, losses, snaps, term, C, wkey, tok, acknowledged, sweeps, more>>

\* The writes whose entries the batch holds and whose key was refused with it.
Refused(c) == {n \in 1..Len(wkey) : wkey[n] \in DOMAIN C[c].states /\ C[c].states[wkey[n]].w \in bad
                                  /\ \E e \in C[c].es : <<e.life, e.id>> = tok[n]}
Told(c) == {n \in 1..Len(wkey) : \E s \in C[c].segs : s[1] = tok[n][1] /\ tok[n][2] <= s[2]} \ (refused \cup Refused(c))

\* Refused: the dead letter, and Redis gets back what MongoDB holds, if it still has the very state that was refused.
RollBack(c, k) ==
  /\ C[c].pc = "docs" /\ OpsOf(c, V(c)) = {} /\ k \in C[c].back
  /\ IF ~Mine(c) THEN C' = [C EXCEPT ![c] = Idle] /\ UNCHANGED R
     ELSE IF ~SameLife(c) THEN C' = [C EXCEPT ![c] = [Idle EXCEPT !.pc = "life"]] /\ UNCHANGED R
     ELSE /\ C' = [C EXCEPT ![c].back = @ \ {k}]
          /\ R' = IF /\ VeryStateInRollBack => R.doc[k] = C[c].states[k]
                     \* a key that is written again further on is rolled back with its last write, if at all
                     /\ LastWriteInRollBack => ~\E i \in 1..Len(R.stream) : R.stream[i].k = k /\ R.stream[i].id > C[c].upto[2]
                  THEN [R EXCEPT !.doc[k] = AsMongo(k), !.ticket[k] = 0] ELSE R
  /\ UNCHANGED <<proc, snap, lives, losses, snaps, mdoc, tomb, term, log, ops, wkey, tok, acknowledged, sweeps, more>>

Ack(c) ==
  /\ C[c].pc = "docs" /\ OpsOf(c, V(c)) = {} /\ C[c].back = {}
  /\ IF (LeaseInAck /\ ~Mine(c)) THEN C' = [C EXCEPT ![c] = Idle] /\ UNCHANGED <<R, acknowledged, refused>>
     ELSE IF (AckedInAck /\ R.acked # C[c].left) \/ (LifeInAck /\ UseLife /\ ~SameLife(c))
     THEN C' = [C EXCEPT ![c] = [Idle EXCEPT !.pc = "life"]] /\ UNCHANGED <<R, acknowledged, refused>>
     ELSE LET last == C[c].upto[2]
              rest == SelectSeq(R.stream, LAMBDA e : e.id > last) IN
          /\ R' = [R EXCEPT !.stream = rest, !.acked = [v |-> V(c), life |-> C[c].upto[1], id |-> last],
                            \* the mark of a delete goes with its last entry
                            !.doc = [k \in Keys |-> IF R.doc[k].s = "del" /\ ~Waits([R EXCEPT !.stream = rest], k) THEN Cold ELSE R.doc[k]]]
          /\ C' = [C EXCEPT ![c] = [Idle EXCEPT !.pc = "loop", !.term = C[c].term, !.batch = C[c].batch, !.life = C[c].life, !.left = R'.acked]]
          /\ acknowledged' = acknowledged \cup Told(c) /\ refused' = refused \cup Refused(c)
  /\ UNCHANGED <<proc, snap, lives, losses, snaps, mdoc, tomb, term, log, ops, wkey, tok, sweeps, F, used, bad, stale>>

Sweep(k) ==
  /\ sweeps < MaxSweeps /\ ~Waits(R, k) /\ proc # 0 /\ R.life = proc /\ R.checked = R.life
  /\ R.doc[k].s = "doc" /\ ~(Alive(k) /\ mdoc[k].w = R.doc[k].w)
  /\ R' = Append1(R, k) /\ sweeps' = sweeps + 1
  /\ UNCHANGED <<proc, snap, lives, losses, snaps, mdoc, tomb, term, log, ops, C, wkey, tok, acknowledged, more>>

Next == \/ \E k \in Keys, kind \in {"doc", "del", "bad"}, conditional \in BOOLEAN : Write(k, kind, conditional)
        \/ Snapshot \/ Crash \/ Failback \/ Flush \/ ExpireLease
        \/ \E c \in Committers : Die(c) \/ TakeLease(c) \/ Learn(c) \/ BeginTerm(c) \/ Look(c) \/ EndGiveBack(c) \/ Check(c)
                                 \/ Read(c) \/ SendDocs(c) \/ Ack(c) \/ \E k \in Keys : GiveBack(c, k) \/ RollBack(c, k)
        \/ \E o \in ops : Apply(o)
        \/ FillRead \/ Fill
        \/ \E k \in Keys : Sweep(k) \/ Evict(k) \/ Ticket(k)

Spec == Init /\ [][Next]_vars

\* P1 to P4
AcknowledgedIsInMongo == \A k \in Keys : Eff(k) >= MaxAcked(k)
\* P6
CheckedRedisIsAsNew == (proc # 0 /\ R.life = proc /\ R.checked = R.life) => \A k \in Keys : R.doc[k].s = "cold" \/ R.doc[k].w >= MaxAcked(k)
\* P7, as far as Redis tells: a token of the last acknowledged life
TokensAreTrue == \A n \in 1..Len(tok) : (R.acked.life = tok[n][1] /\ tok[n][2] <= R.acked.id /\ proc # 0 /\ R.life = proc /\ R.checked = R.life) =>
                   Eff(wkey[n]) >= n \/ n \in refused
\* P7
RefusedIsNotInMongo == \A n \in refused : ~(Alive(wkey[n]) /\ mdoc[wkey[n]].w = n)
\* An acknowledged conditional write didn't go by what Redis had fallen back to.
ConditionsAreTrue == stale \cap acknowledged = {}
Symmetry == Permutations(Committers)
=============================================================================
