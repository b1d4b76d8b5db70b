"""Two .tflite files that do nothing but multiply: a 1x1 convolution of 1024 positions, 256 to 256 channels.

Written by tests/edge/profiling/make_gemm.py. LZMA, then base85.
"""

MACS = 67_108_864

FILES = {
    "fp32": (
        "{Wp48S^xk9=GL@E0stWa761SMbT8$j<Oo9obzJ}s05eI9RB_v<7vYxgnLPS@(5hJfFW6b_aQqhI9y+obkwm|}4o}*}T?tPx&"
        "Zjs%!VD#?W0a)9LH8AfU=xG^8$dT6kkNF;g%!)LuAqSMBUt?mK8tBA!Vlp6pSJ*66Vo7AHeh!jX{C1@-tV+=FqkLF){AF4`V"
        "x+FzE;8u{1;bWa`RljvfnWA%z=h<bo7tvibk+BSj@XSo98PS1^z%U^h1kfPQ==cens=zr6QL3bq##SHW(ZD69XB2fEH>h5$4"
        "l)z%<MmbJ_4u;7XmrnfQA-)S-K8B!;sp$usg|VvQWSgocDchs1<3Jla$R{pH&{w}#w{NYq%_)W4LQU8BHmi#iXSF&NhFRQ8e"
        "jw{mfy>BRUCXDGXhf0bXt-~?AS-KOOi!z`M^2c0NJ<N1^M|Mw)2g~A>;XbrZX;$N&Xu*Gx|w^7riQd!FwyPs7_miwyl<jD=P"
        "9w+kk9k7&*F>Y|4rz2nND9eS-r|u_aZC6gNSwZ`%49RdIA*&^Dhyr&SW6`%bZWM_ibd8grn|;M+?G#h&dRY0BJNR6wH!KYUo"
        "?!4`*fTC!GYxapgX=a>DtBlbdFoiXyXF22L&2{&Jm>YWo_WmBe^?=?&~%7V*gerqP$5iKDfg$f_kE@IZ3!6p#`WeZszeu1-$"
        "#YS4lSCZ#=jQ?*9KkP(`P2prVt@AgXBeKRxs$v8u^yO{J@t?uhr1v`P1v&6J3$5=^$oYf>#g#L#QG#W^it%&53Zvo-i`ebpy"
        "@u%9xYA7Q*gq<kN@}<F(;vn7Ou3zLgrn$fs_-4kVD#efsf^<j}=<5EtUr00000BS+vdp*KWX00EH&#E=jGyG?PEvBYQl0ssI"
        "200dcD"
    ),
    "int8": (
        "{Wp48S^xk9=GL@E0stWa761SMbT8$j;ULEXt6cyN05eI9RB_v<7vYxgnLPS@(5hJfFW6b_aQqhI9y+obli_;VpjAta)mRI+N"
        "TP2=lBd41nCIGGqu-1z!VPY<R?b%pY|_WHeA`-&kqy8lVcO)MOA9%p;)f22oEQ-|A24R`I><zare+cI0e}m_rwJg@p!ONm*("
        "``vkSv3;!k$vpxmbwf2EJ{-2srDnW%z%UToVRmx>569<~hA&&Vp)|iy>4$dJR5<KA^2>j4PWjvxWfNUbov1#;?qq7HC~MyP_"
        "W@{MTj!lpJ{^!vovubhs%gdn7Wim|$N--D#ysqTuL%z;=@XH`b*yL8b>gwquqg<`!hTS7_Kh-2ZqK&E-@7NKZ^`39AbX);b>"
        "m!d~8Z2CBBgwaTzSOSSMwgIdmqAX}{(#ho8=sh%Mqn~ky<TiJ3);PquAht3y!l?v(vQ{6A`FKA<ci$xIVM_~96a2x9)P+t(N"
        "Ri#0~atD^Y0oovUtrjdb2xil+VllI+#TV^P%}l!{G2qe6c@8#`EladyOWRJ7GXmXzsgHdw-MA7LHvcaF_(@WqdIK2pt2mK?#"
        "--&_`bdj;Z*Z(SK0Q*=x7BqgRA~Rdw{~hGJfN%iFtbpWLX3hi)8&9<xaOd?C+^#}PBoAn2@82bKG2+cx=^oHoB7CURJEe^K1"
        "7k)#1M&-m9$sKPRjsoj=ZTGl)GBV3L2Kc_5fhmCRo>JmQ{AU8eZjY-2nQz#CPRQ`q-RejZC;vmM>$m4&B{r{aisA{xG2-+xN"
        "z|$u-GGkYKVSDNHgF45XJgN8;#c=OA9#@Fx>MMCRIC$q^xz=9YvLH8_noja&-aTBiF~xHjURZI7x82NMntcT8_5BbVvch9K1"
        "HWLh{84;~)SyKkBgh&oy+>N!_%ZQ=j`P*ek^_aIYl00GAZ$iV~vJBpw{vBYQl0ssI200dcD"
    ),
}
