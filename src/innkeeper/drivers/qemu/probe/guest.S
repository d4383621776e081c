# The guest that proves an accelerator: a kernel of a few hundred bytes that does what the first second of any 64-bit guest does.
#
# It is loaded by the firmware of an ordinary machine (so real mode and the firmware's own devices have worked by then), and
# leaves through the debug exit port with GOOD, or with the number of the step that went wrong. A step that never comes to
# its end is noticed by the clock outside.
#
#   1 long mode, paging          2 floating point            3 page fault
#   4 user mode and back         5 timer interrupts, sleep   6 device registers in memory
#   7 touching 16 MiB of memory  8 200 million instructions: a moment on a processor, many seconds in an interpreter
#
# guest.py holds this, assembled; a test assembles it again and compares. By hand:
#   gcc -c -o guest.o guest.S && ld -Ttext=0x100000 -e 0x100020 --oformat=binary -o guest.bin guest.o

        .intel_syntax noprefix
        .set GOOD, 42
        .set EXIT_PORT, 0xf4
        .set TICKS, 10
        .set TABLES, 0x200000           # page tables: PML4, PDPT, four directories
        .set IDT, 0x210000
        .set STACK, 0x220000
        .set USER_STACK, 0x230000
        .set PLAYGROUND, 0x1000000      # 16 MiB from here on are touched

        .code32
        .org 0
header: .long 0x1badb002, 0x00010000, -(0x1badb002 + 0x00010000)
        .long 0x100000, 0x100000, 0, 0, 0x100020

# --- 1: long mode, with the first four GiB mapped to themselves
        cli
        cld
        mov     esp, STACK
        mov     edi, TABLES
        xor     eax, eax
        mov     ecx, 0x8000 / 4
        rep stosd
        mov     dword ptr [TABLES], TABLES + 0x1000 + 7
        mov     dword ptr [TABLES + 0x1000], TABLES + 0x2000 + 7
        mov     dword ptr [TABLES + 0x1008], TABLES + 0x3000 + 7
        mov     dword ptr [TABLES + 0x1010], TABLES + 0x4000 + 7
        mov     dword ptr [TABLES + 0x1018], TABLES + 0x5000 + 7
        mov     edi, TABLES + 0x2000
        mov     eax, 0x87               # present, writable, for users, 2 MiB
        mov     ecx, 2048
1:      mov     [edi], eax
        add     eax, 0x200000
        add     edi, 8
        loop    1b
        mov     eax, cr4
        or      eax, 0x620              # PAE, OSFXSR, OSXMMEXCPT
        mov     cr4, eax
        mov     eax, TABLES
        mov     cr3, eax
        mov     ecx, 0xc0000080         # EFER: SCE, LME
        rdmsr
        or      eax, 0x101
        wrmsr
        mov     eax, cr0
        and     eax, ~0x4               # floating point is not emulated
        or      eax, 0x80000002         # PG, MP
        mov     cr0, eax
        lgdt    [gdt_pointer]
        ljmp    0x08, offset long_mode

        .code64
long_mode:
        mov     eax, 0x10
        mov     ds, eax
        mov     es, eax
        mov     ss, eax
        mov     esp, STACK
        mov     ebx, 1

# Every exception and interrupt goes to `wrong`, but for the two that we provoke.
        mov     edi, IDT
        mov     ecx, 256
1:      lea     rax, [wrong]
        call    gate
        loop    1b
        mov     edi, IDT + 14 * 16
        lea     rax, [fault]
        call    gate
        mov     edi, IDT + 32 * 16
        lea     rax, [tick]
        call    gate
        lidt    [idt_pointer]

# --- 2: floating point
        mov     ebx, 2
        mov     eax, 2
        cvtsi2sd xmm0, eax
        sqrtsd  xmm0, xmm0
        movq    rax, xmm0
        movabs  rcx, 0x3ff6a09e667f3bcd
        cmp     rax, rcx
        jne     leave_with_step

# --- 3: a page fault, which tells where
        mov     ebx, 3
        xor     r8d, r8d
        movabs  r9, 0x140000000
        mov     al, [r9]
        cmp     r8, r9
        jne     leave_with_step

# --- 4: user mode and back
        mov     ebx, 4
        mov     ecx, 0xc0000081         # STAR: kernel at 0x08, user below 0x18 + 16
        xor     eax, eax
        mov     edx, 0x00180008
        wrmsr
        mov     ecx, 0xc0000082         # LSTAR
        lea     rax, [back]
        mov     rdx, rax
        shr     rdx, 32
        wrmsr
        mov     ecx, 0xc0000084         # FMASK
        mov     eax, 0x300
        xor     edx, edx
        wrmsr
        lea     rcx, [user]
        mov     r11d, 2
        sysretq
user:   mov     esp, USER_STACK
        push    rbx
        mov     ecx, 1000
1:      loop    1b
        mov     ax, cs                  # says in which ring this runs
        and     eax, 3
        pop     rbx
        syscall
back:   mov     esp, STACK
        cmp     eax, 3
        jne     leave_with_step

# --- 5: the timer, while the processor sleeps
        mov     ebx, 5
        mov     al, 0x11                # interrupt controllers: vectors from 32, only the timer
        out     0x20, al
        out     0xa0, al
        mov     al, 32
        out     0x21, al
        mov     al, 40
        out     0xa1, al
        mov     al, 4
        out     0x21, al
        mov     al, 2
        out     0xa1, al
        mov     al, 1
        out     0x21, al
        out     0xa1, al
        mov     al, 0xfe
        out     0x21, al
        mov     al, 0xff
        out     0xa1, al
        mov     al, 0x34                # timer: 1000 per second
        out     0x43, al
        mov     al, 1193 & 0xff
        out     0x40, al
        mov     al, 1193 >> 8
        out     0x40, al
        xor     r10d, r10d
1:      sti
        hlt
        cli
        cmp     r10d, TICKS
        jb      1b

# --- 6: registers of devices in memory: one outside the kernel, one usually within
        mov     ebx, 6
        mov     dx, 0xcf8               # have the host bridge show configuration space at 0xb0000000
        mov     eax, 0x80000064
        out     dx, eax
        mov     dx, 0xcfc
        xor     eax, eax
        out     dx, eax
        mov     dx, 0xcf8
        mov     eax, 0x80000060
        out     dx, eax
        mov     dx, 0xcfc
        mov     eax, 0xb0000001
        out     dx, eax
        mov     ecx, 100
        mov     edi, 0xb0000000
1:      mov     eax, [rdi]
        cmp     ax, 0x8086              # the host bridge's vendor
        jne     leave_with_step
        loop    1b
        mov     ecx, 0xfee00030         # local interrupt controller: version
        mov     eax, [rcx]
        and     al, 0xf0
        cmp     al, 0x10
        jne     leave_with_step

# --- 7: memory, each page for the first time
        mov     ebx, 7
        mov     edi, PLAYGROUND
        mov     ecx, 4096
1:      mov     [rdi], rcx
        add     rdi, 4096
        loop    1b
        mov     edi, PLAYGROUND
        cmp     qword ptr [rdi], 4096
        jne     leave_with_step

# --- 8: work
        mov     ebx, 8
        mov     ecx, 100000000
1:      dec     ecx
        jnz     1b
        mov     ebx, GOOD

leave_with_step:
        mov     eax, ebx
        out     EXIT_PORT, al
1:      cli
        hlt
        jmp     1b

wrong:  jmp     leave_with_step

fault:  mov     r8, cr2
        add     rsp, 8                  # the error code
        add     qword ptr [rsp], 3      # the instruction that faulted: mov al, [r9]
        iretq

tick:   inc     r10d
        push    rax
        mov     al, 0x20
        out     0x20, al
        pop     rax
        iretq

gate:   mov     [rdi], ax               # an interrupt gate at rdi to rax
        mov     word ptr [rdi + 2], 0x08
        mov     word ptr [rdi + 4], 0x8e00
        mov     rdx, rax
        shr     rdx, 16
        mov     [rdi + 6], dx
        shr     rdx, 16
        mov     [rdi + 8], edx
        mov     dword ptr [rdi + 12], 0
        add     rdi, 16
        ret

        .balign 8
gdt:    .quad 0
        .quad 0x00209a0000000000        # 0x08 kernel code
        .quad 0x0000920000000000        # 0x10 kernel data
        .quad 0
        .quad 0x0000f20000000000        # 0x20 user data
        .quad 0x0020fa0000000000        # 0x28 user code
gdt_pointer:
        .word gdt_pointer - gdt - 1
        .long gdt
idt_pointer:
        .word 256 * 16 - 1
        .quad IDT
