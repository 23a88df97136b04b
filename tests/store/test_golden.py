"""Regions as earlier versions of this package wrote them: today's reads them, and writes the same.

The images were written once. One that does not open any more, or is written differently, is
another format: its number has to change, and what reads the old one has to say so.
"""

from __future__ import annotations

import base64
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support import inside
from support.shares import adopted

from mmapshare import Share, SharedDict

LINE = struct.Struct("<Q64s")
"""Where it stands in the region, and 64 bytes; what is not told is zero."""
USED_BYTES = 64 << 10
"""No record of these stands further behind."""


New = Callable[[type, Any], Any]
"""Makes a share or a dict, of a first value."""


def write_share(new: New) -> Share[Any]:
    share: Share[Any] = new(Share, {"n": 0})
    share.set({"n": 1, "raw": b"raw" * 5, "numbers": [1, -2, 2.5, None, True]})
    share.set([bytearray(range(256)) * 20, "second", bytearray(b"z" * 5000)])
    return share


def write_dict(new: New) -> SharedDict[Any, Any]:
    shared: SharedDict[Any, Any] = new(SharedDict, {"a": 1, 2: [b"two"]})
    shared["a"] = {"n": 3}
    shared.update(b="more", c=bytearray(b"y" * 5000))
    del shared[2]
    return shared


def in_memory(cls: type, value: Any) -> Any:
    return cls(value, max_size="64K", kind="memfd")


def in_file(path: Path, cls: Any, value: Any) -> Any:
    """A share is a durable one, a dict is not."""
    return cls.open(path, value, create=True, max_size="64K", durable=cls is Share)


def value_of(share: Any) -> Any:
    return dict(share) if isinstance(share, SharedDict) else share.get()


def image_of(share: Any) -> dict[int, bytes]:
    """The lines of a region that are not zero."""
    raw = bytes(inside.map_of(inside.region_of(share))[:USED_BYTES])
    lines = ((at, raw[at : at + 64]) for at in range(0, len(raw), 64))
    return {at: line for at, line in lines if any(line)}


def packed(image: dict[int, bytes]) -> str:
    """As it stands below."""
    raw = b"".join(LINE.pack(at, line) for at, line in image.items())
    return base64.b85encode(zlib.compress(raw, 9)).decode()


def unpacked(text: str) -> dict[int, bytes]:
    raw = zlib.decompress(base64.b85decode(text))
    return dict(LINE.iter_unpack(raw))


# --- The images --------------------------------------------------------------------------------

GOLDEN = {
    "share": (
        write_share,
        [bytearray(range(256)) * 20, "second", bytearray(b"z" * 5000)],
        "c-pPnd7O-80KoBQEK7(r_kFW#t#z+09kZ6mwh~<mxyDi1&2B?P9;Mncp?YnXtGgUgNVg}^ML9~ToKcQ+"
        "Qc7jXyvy=gK1;vnGoN|iXP$X}?>pc5Z$2YLV&v!NbnDT%yD;eU_O^W+4tSQ&+u=&yyf<S>FHyddk|QdP"
        "j_$13f5(VEPZIxc$dl&5{UZv~>z#Q=oob={M*TTe3+W%bTKV>r#Box}3CqWhkrk)7tl>l-rSFerSKcvi"
        "F;pJX_sJSlYwNF!)#8Q%El(6@o`Fx~cqjK*C+%p+5Kk)VH&V;3f8@F1LyOlehz;u>Eh^S}YiW6gE{Dp>"
        "%B0@u6sev#=~@zvWuC?Nb^Ly2rzTF1T%=T(%U!A^Rj-j;v(`Da>(o8BUj38?Mw8iMwb>m`m)qm@`2)dF"
        "xM8EzG|?dO{>JG|GMZ*KYu=(|tJZC@+Gd}3e!B}Uyy)UcPW#*r9WUwB`O+?Vm*sc8yxSGsdt7<d)z@6x"
        "^SbMM_3m>+-+uiE42%vMJS3ubhTeG7&BF=`Zy8=xd~0mP$lFGZzJ1KtJI2ZJciuJO?tAVnx$pjo@dqYN"
        "p7P*B4{K9PA9?h#$Df!sea6gLPd@eZGtWNv{0ma=yf}N#+<7m}U-0rP3l}YZb;)b5zwzc<Z@;rty}Rta"
        "<tyI*;KPqTUb*U%Pgk#5yY92k*MITlhOfT<X5*&KTefcdcKeR+zTde^>7Ctse%SltPe1?i>u>w^|Nh5;"
        "KmR)T_dow0DyzDW5%MuYK1RsL2>F;G9~0zbf_zMnj~VhYLq2B6#|-&cARi0lV}X1ukdGDeu|hsp$j1u#"
        "*dQMp<YR+;Y><x~^07lccF4yL`8XgS2jt^`d>oLE6Y_CFK2FHT3Hi7n9~b1~f_z+%j~nuFLq2ZE#|`;-"
        "ARiCp<AHoUkdGJg@j^ac$j1x$_#hu2<l}>Ue2|YH^6^7He#plU`2--J0OS*Zd;*Y95b_B^K0(MQ2>FB{"
        "pAh5|f_y@dPZ;tELq1{1Cwy8TEuLH)9Z*;>P%ACbe@Po%=@1Q1w_5cPfjScED5xVEK|WANLLCKlL@MM1"
        "btKeLP)DReK2S$O9R+nnW5@^UNT{Qrj!1`mppJw(3hIa^kPp<6P)9)>kpcNY9SL<5)DcY~AE+atj)FQO"
        "6Y_yN66z?ZBbq@zP)9-?1$9Jo$Or03sH32cXaV^^9SL<5)DbNqAE+atj)FR(732eTB-Bw*N3@1~ppJw("
        "3hIb9kPp<6P)9)>kp=lc9SL<5)DdkVAE+atj)FQO8}d2pjux%>_vXXSfY(|",
    ),
    "dict": (
        write_dict,
        {"a": {"n": 3}, "b": "more", "c": bytearray(b"y" * 5000)},
        "c-pPm&1(}u7{~Ev^CBWxlBV^gt=5-RVv*t{(1V9H@laR-S`R(#AxiL~EoiM&2tGGOiinOLJcytt{{c^h"
        "=MV9Z5WVyyCfQl@LX=v+b9r`VHlNx3O-{2SNozE&Ucb4rDuM4;K2;}gtmO_ppV<0Y-#&Ur(iyGwN_t;y"
        "effL0hQ6PZ|7$wZfBf|0!^MezckE9SmwkO%+aDARzt>(lsaF<;rhnHDyTMo{^ut--|5ixqkMekDYi+zE"
        "{&%0_yL*H8zZ=Q#LfX&2nN7F!V(cnALDNN<RvdcARib<}-D<nG+jL6@*snsmP82M47CYj{V^_~^KH6|i"
        "Z&qKdeCgIq`hW9vIo+?q(CcZ3%KNGABM;JTw-c<pDEpvG&wQ;{2XmF8&v`1TtA2Q~pT~TfN9=lm-0FC@"
        "U8{2)l^X9$Nfx1ZdMh7JpCos0<9@3*^tzM`y?y2{w#PRu{&jla%^*i687G7sg&cz%DM9%_jzW$>j!Z%M"
        "K#oF=L5@sA`9O|BjzNwbgYtnKg&cz%IS%CmISM%jIdTHZ2XYj0407Zoln>-6<QU}043rP#DC8LA$Sjl("
        "<S67A<j5S959BE1805$)C?CjC$T7%~(@;K;qmW~eBlA!`kfV@ekRxZHd>}_5#~??}Lis?BLXJU>oP+X#"
        "9EBW%961l=133yg202oO@_`(M96PAv56v&_zIxKTSQ!3ZaBZZ{_0OS;{d4Fj)9fBb51hjP0_PgIg#",
    ),
    "share in a file": (
        write_share,
        [bytearray(range(256)) * 20, "second", bytearray(b"z" * 5000)],
        "c-pPncXU%#9Ki9LmZ3P>X761ZRw%n_k<_TIlp=x?MP)=qq+mlu5#-{cYOIQn;$Ao^D!BK!qNrHJiGm8a"
        "7bq(3L8X1KP&k!SINy76@_R4$<(qdt`7b9z=&PclWW=blks`}DUspUWn7?p#*5cZR`kA9wn1wLu8@VN-"
        "^_sX~?#iZ_FwV0@+iUIeQ1e{k$f{qJP8QaLlVzn#hontAT_<-s-&mYe8uN<XUh4lgT5dF0(!P*!gDozJ"
        "Tz%H&?y$XWCYI@QQf&3$rnzau)M3r9n|Ab3#`~*_+U{7_>qmKW3O6^+hIwn^y1(Jnaef!$(pg%@RH>DV"
        "bbL2_65Bh;ZJk(i$dt*h8arJ}=4^d#{m?R<E2}4uOI4+{F<PwLG;~X2W1}=WrHKyu!SI??b$k!LukH7<"
        "s6ap5`XP0~+TxOx-JxTr&U@|MWuJZb+dn5a&up>U><*{P?eY5jfnX>ciRO1Lh>1M?`flBO^z0SyUD&5@"
        "zy1RT4k|j}z=MhhA3P*ca!B&f!wxSkJ7Q@0u!`YFjyP)MsH2ZL_PFCu7=7YNV@^Kh)Uo5nPe`41`WXqM"
        "Gx5wxXHBl0GWG1L^t9@8rk{J>jPqyCx?r}PbKyl7UvlZ(n#(S~B6DT!Raaj#?^<ns-Gb|`zv0H4ZocK#"
        "+it&O;hlHgeNVkKI`=NR@BRlCFM05xhaY+LvB#fy@~NkvdG@*IUr;YDed*<8ue|!&^4A+yys`4lx88o|"
        "-S<|#|H0}tAAa=l+I8zc`Si2TzxeX2ufI`7=iBc#Z2bO*O+Wth^X6ZE{q6TZ{`~9jfBxOl*nS@~<YR_>"
        "%#e>6^07cZ7Rbi}`B)$yE97H^e5{a<74oq`J~qh52Km?^A3Nk@hkWdij~()HKt2x0#{u~`ARi~><Ai*i"
        "kdG7caX~&V$j1fwxF8=l<l}~X+>nnO^6@}E9>~W7`FJ27FXZEee7um47xM8zK0e6D2l@CQA3x;dhkX2y"
        "k00_0Kt2J;Cjj{bAfF)Q6NG$%kWUcu2|+#~$R`B(gdm?V<P(N`!jMlG@`*q`5y&S3`9vU}DC84`e4>y~"
        "beBF_rc*jKeoEy8t**xSC2dBVOXTlrxBV*tbtKeLP)Brye4vhmItuED0>}sINT{Qrj)*}%P)9-?1$9I>"
        "$Or03sH32c=nnZn9SL<5)Db-(AE+atj)FR(C*%WlB-Bw*NA!YxppJw(3hIbB<O6ji)KO4J^oD$(j)Xc2"
        ">WD(f2kJ<uqo9uH1NlH533U|I5q%*as3W0{f;yrf<O6ji)KO4J^oM+)j)Xc2>WBf557d!RM?oDi5b}XK"
        "66z?ZBL+b}P)9-?1$9Ib<g>>eE!Fz(&Hn*P$mb9",
    ),
    "dict in a file": (
        write_dict,
        {"a": {"n": 3}, "b": "more", "c": bytearray(b"y" * 5000)},
        "c-pPmJ!n%=6bJD0k_N=7F^#QFG&ZL46fIpMf<j}Tkia7-Ehr8TiIPRM1yhs`!83L!;>T6gL0klJanz-7"
        "(8*Z@5hp=h90Zq+=DmBK`5;Ow|GS*~mEV2&C)0gIw$<yW&Mwv#D52w5OYZYWSLWQ@o7MEY6WO~&j$PpS"
        "sOX43oSQfk){2ftXn6bne#*Mzi5DMR-t1b@t5x65wFdX`!1zb;an;S!wwwHIVOHy%`K>`t|M%J~*?Mxi"
        "Z~0GswqbjV-nT+nzaI5JNBQW6r0)AUYU{7kaOcK(+xv8^dLgXkX6j-zp`UvhT;1&5|70M)gYh`^Ag5jT"
        "P+;73r(yg=GpMLzTtDS!n{CrJD`sZ<IrC_Ij_=HL4%?~of$@?nH<wLA&GPNq>#)ZEue#Rb@$aQh%yp=g"
        "E`^WWOSjFsvt;~aE2JmCc;(()DXlq=*}9<9hr4+c;yeNq1#+q5T{g{5-_O*aW^5J}b)u7Z#7{DEZTWgL"
        "n!2B{QxDg)vpT$S`k%{NZUS;>7sjc890oZ8awr4J2jnow5s*V;pnO0MgB$@llm+Djav0<Y$f4b!d_WF^"
        "9055r4$24QFvt;*LldBUKn{Z(0Xeh>ln=;ZkRu?6CPDdt90oZ8awrGN2jnow5s*W9P(C1sL5_eN+6&4D"
        "<S@t)kVE@G`G6b-IRbL10LlmCFvt;*L;FGbfE)%n0&-{yln=;ZkRu?6ilBTz4uc#4IdlM&56EGVBOr%L"
        "pnO0MgB<x^M=#BfY}~sQb*B5@7n~lb`R+Y*x_b}pCmP{pbk8mPZ`Ml3)&",
    ),
}


@pytest.fixture(params=GOLDEN)
def golden(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Callable[[], Any], Any, dict[int, bytes]]:
    """What writes it, what it holds, and its bytes."""
    write, value, text = GOLDEN[request.param]
    new: Any = in_memory
    if "file" in request.param:
        monkeypatch.setattr(*inside.at("is_memory"), lambda fd: False)  # So the folder may be.
        new = partial(in_file, tmp_path / "new")
    return partial(write, new), value, unpacked(text)


@pytest.fixture
def opened(golden: Any, tmp_path: Path) -> Iterator[Any]:
    """The golden region, as it was found; a file is also that of another machine."""
    write, _, image = golden
    like = write()
    size_bytes, cls, is_file = inside.segment_of(like).size_bytes, type(like), like.address
    like.close()
    fd = (
        os.open(tmp_path / "old", os.O_RDWR | os.O_CREAT)
        if is_file
        else os.memfd_create("mmapshare")
    )
    os.fchmod(fd, 0o600)
    os.ftruncate(fd, size_bytes)
    for at, line in image.items():
        os.pwrite(fd, line, at)
    if is_file:
        os.close(fd)
        share = cls.open(tmp_path / "old", create=False)
    else:
        share = adopted(cls, fd)
    yield share
    share.close()


def test_an_old_region_reads_as_what_was_written(golden: Any, opened: Any) -> None:
    _, value, _ = golden
    assert value_of(opened) == value
    assert opened.version == {"Share": 3, "SharedDict": 4}[type(opened).__name__]


def test_an_old_region_is_written_on(golden: Any, opened: Any) -> None:
    version = opened.version
    if isinstance(opened, SharedDict):
        opened["new"] = 1
        assert opened["new"] == 1 and opened["b"] == "more"
    else:
        with opened.locked() as view:
            view[1] = "third"
        assert opened.get()[1] == "third"
    assert opened.version == version + 1


def test_a_new_region_is_laid_out_as_the_old_one(golden: Any) -> None:
    """But for its id with the check behind it, what the lock says of who had it when, and where a
    file was made, and since which boot it is true.
    """
    write, _, image = golden
    share = write()
    new = image_of(share)
    made = slice(8 * inside.INODE - 64, 8 * inside.BOOT[1] - 56) if share.address else slice(0, 0)
    chance = {0: slice(16, 32), 64: made, 128: slice(0, 64), 192: slice(0, 8)}
    assert new.keys() == image.keys()
    for at, line in image.items():
        masked = [bytearray(line), bytearray(new[at])]
        for each in masked:
            if at in chance:
                each[chance[at]] = bytes(len(each[chance[at]]))
            if at == 0:
                each[56:64] = bytes(8)
        assert masked[0] == masked[1], f"at byte {at}"
    share.close()
