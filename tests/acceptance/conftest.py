import tests.acceptance.test_model as m, collections, atexit
C=collections.Counter()
r=m.Source.run
def run(self,s,*st):
    ok=r(self,s,*st); C[(st[0].split()[0]+" "+(st[0].split()[3] if st[0].startswith("alter") else ""),ok)]+=1; return ok
m.Source.run=run
for name in ("rest","start","stop"):
    def w(name=name):
        f=getattr(m.Machine,name)
    
o=m.Machine.differences
def d(self):
    x=o(self); C["compare",bool(x)]+=1; return x
m.Machine.differences=d
o2=m.Case.once
def once(self,**k):
    C["once"]+=1; return o2(self,**k)
m.Case.once=once
atexit.register(lambda: print(C))
